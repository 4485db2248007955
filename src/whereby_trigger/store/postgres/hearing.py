"""What sessions hear: the webhooks of their rooms, and how far it is certain that no lower number is still to come."""

from whereby_trigger.store.postgres.link import Connection
from whereby_trigger.store.rooms import Heard

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
"""The same as the first, where it is known of a number that it is settled: reads only what came after that."""

HEARD = """
SELECT found.room, found.seq, found.body FROM unnest($3::text[]) AS given (room) CROSS JOIN LATERAL (
    SELECT room, seq, body FROM whereby_trigger.webhooks AS webhooks
    WHERE (webhooks.room, webhooks.seq) > (given.room, $1) AND webhooks.room <= given.room AND webhooks.seq <= $2
    ORDER BY webhooks.room, webhooks.seq LIMIT $4
) AS found ORDER BY found.seq LIMIT $4
"""
"""Looks into the index of rooms once for each, whatever the server thinks of how much there is to be found."""

SETTLES_IN = 10.0
"""Seconds after which no lower number comes to light any more: numbers are given out before they are committed."""

PAGE = 500
LAST = 2**63 - 1


class Hearing:
    """Read what rooms hear, and remember how far all is settled."""

    def __init__(self) -> None:
        self._settled = 0

    async def heard(self, connection: Connection, after: int, keys: frozenset[str]) -> Heard:
        """Read the webhooks of some rooms with a number above `after`, or the first of them."""
        rooms = sorted(keys)
        settled = await self._settle(connection)
        rows = await connection.fetch(HEARD, after, settled, rooms, PAGE)
        more = len(rows) == PAGE
        if not more:
            rows += await connection.fetch(HEARD, max(after, settled), LAST, rooms, None)
        return Heard(tuple(tuple(row) for row in rows), rows[-1]["seq"] if more else settled, more)

    async def _settle(self, connection: Connection) -> int:
        if self._settled:
            settled = await connection.fetchval(SETTLED_SINCE, SETTLES_IN, self._settled, LAST)
        else:
            settled = await connection.fetchval(LAST_SETTLED, SETTLES_IN)
        self._settled = settled or self._settled
        return self._settled
