"""Count what the store on SQLite holds for all replicas now."""

import sqlite3
import time

from whereby_trigger.store.records import Workload
from whereby_trigger.store.states import OVER, RoomState, sql_in

STEPS = 10_000
"""Steps of SQLite between two looks at the clock, well under a millisecond."""

OLDEST_AMONG = 1000
"""Pending webhooks, in order of arrival, among which the oldest is looked for.

It is the first, unless webhooks were replayed, which keep their place. This many rows are read in a few milliseconds.
"""

WORKLOAD = f"""
SELECT 'pending', count(*) FROM webhooks WHERE state = 'pending'
UNION ALL
SELECT 'held', count(*) FROM webhooks WHERE state = 'held'
UNION ALL
SELECT 'oldest', min(queued_at) FROM (
    SELECT queued_at FROM webhooks WHERE state = 'pending' ORDER BY seq LIMIT {OLDEST_AMONG}
)
UNION ALL
SELECT * FROM (SELECT state, count(*) FROM rooms WHERE state NOT {sql_in(OVER)} GROUP BY state)
"""  # noqa: S608


def read(connection: sqlite3.Connection, within: float) -> Workload:
    """Count; raises OperationalError if that takes longer than `within` seconds."""
    give_up = time.monotonic() + within
    connection.set_progress_handler(lambda: time.monotonic() > give_up, STEPS)
    try:
        found = dict(connection.execute(WORKLOAD).fetchall())
    finally:
        connection.set_progress_handler(None, 0)
    pending, held, oldest = found.pop("pending"), found.pop("held"), found.pop("oldest")
    return Workload(pending, held, oldest, {RoomState(state): rooms for state, rooms in found.items()})
