"""Count what the store on PostgreSQL holds for all replicas now."""

from typing import Any

import asyncpg

from whereby_trigger.store.postgres.connection import Connection, transaction
from whereby_trigger.store.records import Workload
from whereby_trigger.store.states import OVER, RoomState, sql_in

WORKLOAD = f"""
SELECT 'pending' AS what, count(*)::float8 AS counted FROM whereby_trigger.webhooks WHERE state = 'pending'
UNION ALL
SELECT 'held', count(*) FROM whereby_trigger.webhooks WHERE state = 'held'
UNION ALL
SELECT 'oldest', min(queued_at) FROM whereby_trigger.webhooks WHERE state = 'pending'
UNION ALL
SELECT state, count(*) FROM whereby_trigger.rooms WHERE state NOT {sql_in(OVER)} GROUP BY state
"""  # noqa: S608


async def read(connection: Connection, within: float) -> Workload | None:
    """Count; return None if that takes the server longer than `within` seconds."""
    try:
        async with transaction(connection):
            await connection.execute(f"SET LOCAL statement_timeout = '{within * 1000:.0f}ms'")
            found: dict[str, Any] = {row["what"]: row["counted"] for row in await connection.fetch(WORKLOAD)}
    except asyncpg.QueryCanceledError:
        return None
    pending, held, oldest = int(found.pop("pending")), int(found.pop("held")), found.pop("oldest")
    return Workload(pending, held, oldest, {RoomState(state): int(rooms) for state, rooms in found.items()})
