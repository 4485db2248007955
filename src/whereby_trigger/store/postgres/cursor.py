"""SQL to read on from a number: on PostgreSQL one is assigned before its commit, so a lower one may appear later."""

from whereby_trigger.store.postgres.connection import Connection
from whereby_trigger.store.records import WebhooksAfter

LAST_SETTLED = """
SELECT seq FROM whereby_trigger.webhooks
WHERE stored_at < whereby_trigger.clock() - $1::float8 ORDER BY seq DESC LIMIT 1
"""
SETTLED_SINCE = """
SELECT max(seq) FROM whereby_trigger.webhooks WHERE seq > $2 AND seq < COALESCE((
    SELECT seq FROM whereby_trigger.webhooks
    WHERE seq > $2 AND stored_at >= whereby_trigger.clock() - $1::float8 ORDER BY seq LIMIT 1
), $3)
"""
"""The same as LAST_SETTLED, from a number that is known to be settled: reads only what came after it."""

WEBHOOKS_AFTER = """
SELECT found.room, found.seq, found.body FROM unnest($3::text[]) AS given (room) CROSS JOIN LATERAL (
    SELECT room, seq, body FROM whereby_trigger.webhooks AS webhooks
    WHERE (webhooks.room, webhooks.seq) > (given.room, $1) AND webhooks.room <= given.room AND webhooks.seq <= $2
    ORDER BY webhooks.room, webhooks.seq LIMIT $4
) AS found ORDER BY found.seq LIMIT $4
"""
"""Looks up each room once in the index of rooms, regardless of the server's estimates."""

SETTLES_IN = 10.0
"""Seconds after which no lower number can appear any more: numbers are assigned before they are committed."""

PAGE = 500
LAST = 2**63 - 1


class SettledCursor:
    """Read the webhooks of rooms, and remember up to which number no more can appear."""

    def __init__(self) -> None:
        self._settled = 0

    async def webhooks_after(self, connection: Connection, after: int, keys: frozenset[str]) -> WebhooksAfter:
        """Return the webhooks of the rooms `keys` with a number above `after`, or the first page of them."""
        rooms = sorted(keys)
        settled = await self._settle(connection)
        rows = await connection.fetch(WEBHOOKS_AFTER, after, settled, rooms, PAGE)
        more = len(rows) == PAGE
        if not more:
            rows += await connection.fetch(WEBHOOKS_AFTER, max(after, settled), LAST, rooms, None)
        return WebhooksAfter(tuple(tuple(row) for row in rows), rows[-1]["seq"] if more else settled, more)

    async def _settle(self, connection: Connection) -> int:
        if self._settled:
            settled = await connection.fetchval(SETTLED_SINCE, SETTLES_IN, self._settled, LAST)
        else:
            settled = await connection.fetchval(LAST_SETTLED, SETTLES_IN)
        self._settled = settled or self._settled
        return self._settled
