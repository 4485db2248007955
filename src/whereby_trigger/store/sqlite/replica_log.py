"""SQL for the log of replicas on SQLite: when each started, and how it ended."""

import sqlite3

from whereby_trigger.store.records import ReplicaRecord
from whereby_trigger.store.states import ReplicaEnding

BEGIN = "INSERT INTO replica_log (id, started_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
END = "UPDATE replica_log SET ended_at = ?, ending = ? WHERE id = ? AND ended_at IS NULL"
FIND = """
SELECT replica_log.id, started_at, ended_at, ending, replicas.seen_at
FROM replica_log LEFT JOIN replicas ON replicas.id = replica_log.id
WHERE started_at <= :until AND (ended_at IS NULL OR ended_at >= COALESCE(
    (SELECT MAX(ended_at) FROM replica_log WHERE ended_at < :since), :since
)) ORDER BY started_at, replica_log.id
"""
FORGET = """
DELETE FROM replica_log WHERE rowid IN (
    SELECT rowid FROM replica_log WHERE COALESCE(ended_at, started_at) < ?
    AND (ended_at IS NOT NULL OR id NOT IN (SELECT id FROM replicas)) LIMIT ?
)
"""


def begin(connection: sqlite3.Connection, id: str, now: float) -> None:
    connection.execute(BEGIN, (id, now))


def end(connection: sqlite3.Connection, id: str, ending: ReplicaEnding, now: float) -> None:
    """Record how a replica ended; the first ending that was seen stays."""
    connection.execute(END, (now, ending.value, id))


def find(connection: sqlite3.Connection, since: float, until: float) -> list[ReplicaRecord]:
    rows = connection.execute(FIND, {"since": since, "until": until}).fetchall()
    return [
        ReplicaRecord(id, started_at, ended_at, ReplicaEnding.of(ending), seen_at)
        for id, started_at, ended_at, ending, seen_at in rows
    ]


def forget(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` replicas that ended before a time; return how many."""
    return connection.execute(FORGET, (before, limit)).rowcount
