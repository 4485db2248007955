"""SQL for who is in each room on PostgreSQL: one statement writes all rooms of a batch, in the order of their keys."""

from collections.abc import Sequence

from msgspec import structs

from whereby_trigger.store.postgres.connection import Connection
from whereby_trigger.store.presence import UNKNOWN, Count, Presence, RoomCounts, presence_of, together

_SAME = "excluded.humans = stored.humans"
_NEWER = "excluded.changed_at >= stored.changed_at"


def _either(column: str) -> str:
    """Return a column of the newer of the two: what has just arrived, and what is stored."""
    return f"CASE WHEN {_NEWER} THEN excluded.{column} ELSE stored.{column} END"


def _since(row: str, differed_at: str, otherwise: str = "NULL") -> str:
    """Return since when the humans of one of the two are there, unless another number came after that."""
    counts = f"{row}.humans_since > {differed_at} OR {row}.differed_at = {differed_at}"
    return f"CASE WHEN {counts} THEN {row}.humans_since ELSE {otherwise} END"


_DIFFERED_SAME = "greatest(excluded.differed_at, stored.differed_at)"
_DIFFERED_NOW = "greatest(excluded.differed_at, stored.changed_at)"
_DIFFERED_LATE = "greatest(stored.differed_at, excluded.changed_at)"
_OLDER_AT = "least(excluded.changed_at, stored.changed_at)"
_DIFFERED = f"CASE WHEN {_SAME} THEN {_DIFFERED_SAME} WHEN {_NEWER} THEN {_DIFFERED_NOW} ELSE {_DIFFERED_LATE} END"
_SINCE = f"""
    CASE WHEN {_SAME} THEN coalesce(
        least(
            {_since("excluded", _DIFFERED_SAME)},
            {_since("stored", _DIFFERED_SAME)},
            CASE WHEN {_OLDER_AT} > {_DIFFERED_SAME} THEN {_OLDER_AT} END
        ),
        greatest(excluded.changed_at, stored.changed_at)
    )
    WHEN {_NEWER} THEN {_since("excluded", _DIFFERED_NOW, "excluded.changed_at")}
    ELSE {_since("stored", _DIFFERED_LATE, "stored.changed_at")} END
"""
COLUMNS = "key, humans, bots, session_id, humans_since, changed_at, differed_at, received_at"
MERGED = f"""
ON CONFLICT (key) DO UPDATE SET
    humans = {_either("humans")}, bots = {_either("bots")}, session_id = {_either("session_id")},
    humans_since = {_SINCE},
    changed_at = greatest(excluded.changed_at, stored.changed_at),
    differed_at = {_DIFFERED},
    humans_stored_at = CASE WHEN ({_SAME} OR NOT {_NEWER}) AND {_SINCE} <= stored.humans_since
        THEN stored.humans_stored_at ELSE whereby_trigger.clock() END,
    received_at = greatest(stored.received_at, excluded.received_at)
RETURNING key, humans, bots, session_id, humans_since, changed_at, differed_at
"""
"""Does what `merged` and `keeps_time` in store/presence.py do: the row is locked before it is read.

Written out: the executor starts each subquery again for each row.
"""

ONE_EACH = """
SELECT key, humans, bots, session_id, at, at, '-infinity', received_at FROM said ORDER BY key
"""
"""Says what `counts_of` in store/presence.py says of each room's count in `said`."""

TWO_EACH = """
SELECT DISTINCT ON (key) key, humans, bots, session_id,
    CASE WHEN lead(humans) OVER newest_first = humans THEN lead(at) OVER newest_first ELSE at END,
    at,
    CASE WHEN lead(humans) OVER newest_first <> humans THEN lead(at) OVER newest_first ELSE '-infinity' END,
    greatest(received_at, lead(received_at) OVER newest_first)
FROM said WINDOW newest_first AS (PARTITION BY key ORDER BY at DESC, seq DESC)
ORDER BY key, said.at DESC, seq DESC
"""
"""Says what `together` says of at most two counts of each room: more of them would depend on the order they came in."""

WRITE = f"""
INSERT INTO whereby_trigger.presence AS stored ({COLUMNS})
SELECT * FROM unnest(
    $1::text[], $2::integer[], $3::integer[], $4::text[], $5::float8[], $6::float8[], $7::float8[], $8::float8[]
) AS given ({COLUMNS})
ORDER BY given.key COLLATE "C"
{MERGED}
"""  # noqa: S608

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
