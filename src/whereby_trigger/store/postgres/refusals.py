"""SQL for refusals on PostgreSQL: one function for each method of the store."""

import math
from collections.abc import Sequence

from whereby_trigger.store.postgres.connection import Connection, affected
from whereby_trigger.store.records import MINUTE, RefusalCount

ADD = """
INSERT INTO whereby_trigger.refusals AS refusals (minute, reason, replica, status, count)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::bigint[])
ON CONFLICT (minute, reason, replica) DO UPDATE SET count = greatest(refusals.count, excluded.count)
"""
READ = """
SELECT minute, reason, replica, status, count FROM whereby_trigger.refusals
WHERE minute > $1 AND minute < $2 ORDER BY minute, reason, replica
"""
FORGET = """
DELETE FROM whereby_trigger.refusals WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM whereby_trigger.refusals WHERE minute < $1 ORDER BY minute LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def add(connection: Connection, counts: Sequence[RefusalCount]) -> None:
    rows = [(each.minute, each.reason, each.replica, each.status, each.count) for each in counts]
    if rows:
        await connection.execute(ADD, *zip(*rows, strict=True))


async def read(connection: Connection, since: float, until: float) -> list[RefusalCount]:
    # As whole numbers, or the index would not serve.
    bounds = math.floor(since) - MINUTE, math.ceil(until)
    return [RefusalCount(*row) for row in await connection.fetch(READ, *bounds)]


async def forget(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` counts of minutes that began before a time; return how many."""
    return affected(await connection.execute(FORGET, math.ceil(before), limit))
