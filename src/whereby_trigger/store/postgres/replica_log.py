"""SQL for the log of replicas on PostgreSQL: when each started, and how it ended."""

from whereby_trigger.store.postgres.connection import Connection, affected
from whereby_trigger.store.records import ReplicaRecord
from whereby_trigger.store.states import ReplicaEnding

BEGIN = "INSERT INTO whereby_trigger.replica_log (id) VALUES ($1) ON CONFLICT (id) DO NOTHING"
END = """
UPDATE whereby_trigger.replica_log SET ended_at = whereby_trigger.clock(), ending = $2
WHERE id = $1 AND ended_at IS NULL
"""
FIND = """
SELECT replica_log.id, started_at, ended_at, ending, replicas.seen_at
FROM whereby_trigger.replica_log LEFT JOIN whereby_trigger.replicas ON replicas.id = replica_log.id
WHERE started_at <= $2 AND (ended_at IS NULL OR ended_at >= COALESCE(
    (SELECT max(ended_at) FROM whereby_trigger.replica_log WHERE ended_at < $1), $1
)) ORDER BY started_at, replica_log.id
"""
FORGET = """
DELETE FROM whereby_trigger.replica_log WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.replica_log WHERE COALESCE(ended_at, started_at) < $1
    AND (ended_at IS NOT NULL OR id NOT IN (SELECT id FROM whereby_trigger.replicas))
    LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def begin(connection: Connection, id: str) -> None:
    await connection.execute(BEGIN, id)


async def end(connection: Connection, id: str, ending: ReplicaEnding) -> None:
    """Record how a replica ended; the first ending that was seen stays."""
    await connection.execute(END, id, ending)


async def find(connection: Connection, since: float, until: float) -> list[ReplicaRecord]:
    rows = await connection.fetch(FIND, since, until)
    return [ReplicaRecord(**{**row, "ending": ReplicaEnding.of(row["ending"])}) for row in rows]


async def forget(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` replicas that ended before a time; return how many."""
    return affected(await connection.execute(FORGET, before, limit))
