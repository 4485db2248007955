"""SQL for refusals on SQLite: one function for each method of the store."""

import sqlite3
from collections.abc import Sequence

from whereby_trigger.store.records import MINUTE, RefusalCount

ADD = """
INSERT INTO refusals (minute, reason, replica, status, count) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (minute, reason, replica) DO UPDATE SET count = max(count, excluded.count)
"""
READ = """
SELECT minute, reason, replica, status, count FROM refusals WHERE minute > ? AND minute < ?
ORDER BY minute, reason, replica
"""
FORGET = "DELETE FROM refusals WHERE rowid IN (SELECT rowid FROM refusals WHERE minute < ? LIMIT ?)"


def add(connection: sqlite3.Connection, counts: Sequence[RefusalCount]) -> None:
    rows = [(each.minute, each.reason, each.replica, each.status, each.count) for each in counts]
    connection.executemany(ADD, rows)


def read(connection: sqlite3.Connection, since: float, until: float) -> list[RefusalCount]:
    return [RefusalCount(*row) for row in connection.execute(READ, (since - MINUTE, until)).fetchall()]


def forget(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` counts of minutes that began before a time; return how many."""
    return connection.execute(FORGET, (before, limit)).rowcount
