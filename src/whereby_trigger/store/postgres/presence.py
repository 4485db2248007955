"""SQL for who is in each room on PostgreSQL: one statement writes all rooms of a batch, in the order of their keys."""

from collections.abc import Sequence

from msgspec import structs

from whereby_trigger.store.postgres.connection import Connection
from whereby_trigger.store.presence import UNKNOWN, Count, Presence, RoomCounts, presence_of, together

WRITE = """
INSERT INTO whereby_trigger.presence AS stored
    (key, humans, bots, session_id, humans_since, changed_at, differed_at, received_at)
SELECT * FROM unnest(
    $1::text[], $2::integer[], $3::integer[], $4::text[], $5::float8[], $6::float8[], $7::float8[], $8::float8[]
) AS given (key, humans, bots, session_id, humans_since, changed_at, differed_at, received_at)
ORDER BY given.key COLLATE "C"
ON CONFLICT (key) DO UPDATE SET
    (humans, bots, session_id, humans_since, changed_at, differed_at, humans_stored_at, received_at) = (
        SELECT
            newer.humans, newer.bots, newer.session_id, since.at, newer.changed_at, differed.at,
            CASE WHEN newer.humans = stored.humans AND since.at <= stored.humans_since
                THEN stored.humans_stored_at ELSE whereby_trigger.clock() END,
            greatest(stored.received_at, excluded.received_at)
        FROM (VALUES
            (excluded.humans, excluded.bots, excluded.session_id,
                excluded.humans_since, excluded.changed_at, excluded.differed_at, true),
            (stored.humans, stored.bots, stored.session_id,
                stored.humans_since, stored.changed_at, stored.differed_at, false)
        ) AS newer (humans, bots, session_id, humans_since, changed_at, differed_at, arrived)
        CROSS JOIN LATERAL (VALUES
            (excluded.humans, excluded.humans_since, excluded.changed_at, excluded.differed_at, true),
            (stored.humans, stored.humans_since, stored.changed_at, stored.differed_at, false)
        ) AS older (humans, humans_since, changed_at, differed_at, arrived)
        CROSS JOIN LATERAL (SELECT newer.humans = older.humans AS so) AS same
        CROSS JOIN LATERAL (
            SELECT greatest(newer.differed_at, CASE WHEN same.so THEN older.differed_at ELSE older.changed_at END) AS at
        ) AS differed
        CROSS JOIN LATERAL (
            SELECT COALESCE(min(times.at), newer.changed_at) AS at
            FROM (VALUES
                (newer.humans_since, newer.differed_at, true),
                (older.humans_since, older.differed_at, same.so),
                (older.changed_at, NULL, same.so)
            ) AS times (at, differed_at, counts)
            WHERE times.counts AND (times.at > differed.at OR times.differed_at = differed.at)
        ) AS since
        WHERE newer.arrived = (excluded.changed_at >= stored.changed_at) AND older.arrived <> newer.arrived
    )
RETURNING key, humans, bots, session_id, humans_since, changed_at, differed_at
"""
"""Does what `merged` and `keeps_time` in store/presence.py do: the row is locked before it is read."""

FIND = """
SELECT key, humans, bots, session_id, humans_since, changed_at, differed_at
FROM whereby_trigger.presence WHERE key = ANY($1::text[])
"""
OCCUPIED = """
SELECT key, humans, bots, session_id, humans_since, changed_at, differed_at
FROM whereby_trigger.presence WHERE humans <> 0 OR bots > 0 ORDER BY changed_at DESC LIMIT $1
"""
OLD = """
key > $1 AND received_at < $2 AND NOT EXISTS (
    SELECT FROM whereby_trigger.rooms AS rooms
    WHERE rooms.key = presence.key AND rooms.state NOT IN ('ended', 'failed')
)
"""
FORGET = f"""
DELETE FROM whereby_trigger.presence WHERE key = ANY (ARRAY(
    SELECT key FROM whereby_trigger.presence AS presence WHERE {OLD} ORDER BY key LIMIT $3 FOR UPDATE SKIP LOCKED
)) RETURNING key
"""  # noqa: S608


async def write(connection: Connection, counts: Sequence[tuple[Count, float]]) -> dict[str, RoomCounts]:
    """Merge the counts of new webhooks, in their order of arrival, with when each came, into what is stored.

    Return what the counts of each of their rooms say now.
    """
    received: dict[str, float] = {}
    for count, received_at in counts:
        received[count.key] = max(received_at, received.get(count.key, received_at))
    rows = [(*structs.astuple(said), received[said.key]) for said in together(count for count, _ in counts)]
    written = await connection.fetch(WRITE, *zip(*rows, strict=True)) if rows else []
    return {row["key"]: RoomCounts(*row) for row in written}


async def find(connection: Connection, keys: frozenset[str]) -> dict[str, Presence]:
    """Return the presence of each room, unknown where no count has arrived."""
    rows = await connection.fetch(FIND, sorted(keys))
    return dict.fromkeys(keys, UNKNOWN) | {row["key"]: presence_of(RoomCounts(*row)) for row in rows}


async def occupied(connection: Connection, limit: int) -> dict[str, Presence]:
    """Return the rooms that hold somebody, latest change first."""
    return {row["key"]: presence_of(RoomCounts(*row)) for row in await connection.fetch(OCCUPIED, limit)}


async def forget(connection: Connection, before: float, after: str, limit: int) -> list[str]:
    """Forget the first rooms above `after` without an open entry whose last count came before a time; return keys."""
    return sorted(row["key"] for row in await connection.fetch(FORGET, after, before, limit))
