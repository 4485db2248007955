"""SQL for webhooks on PostgreSQL: one function for each method of the store."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from whereby_trigger.errors import StoreError
from whereby_trigger.store.postgres import presence, rooms
from whereby_trigger.store.postgres.connection import Connection, Selection, affected, transaction
from whereby_trigger.store.presence import RoomCounts
from whereby_trigger.store.records import (
    Added,
    Arrival,
    Decision,
    Holding,
    PastWebhook,
    Pending,
    Query,
    Record,
    Workload,
)
from whereby_trigger.store.states import DECIDABLE, FIRST_STATES, OVER, REPLAYABLE, UNDECIDED, RoomState, State, sql_in
from whereby_trigger.webhook import room_path

_ARRIVED = """
arrived AS MATERIALIZED (
    SELECT nextval('whereby_trigger.webhooks_seq') AS seq, given.* FROM unnest($1::whereby_trigger.arrival[]) AS given
)
"""
_INSERT = """
INSERT INTO whereby_trigger.webhooks AS webhooks
    (seq, id, type, room, body, received_at, queued_at, owner, state, reason, decided_at, deliveries, kept_until)
SELECT seq, id, type, room, body, received_at, received_at, owner, state, reason, decided_at, deliveries, kept_until
FROM arrived ORDER BY id COLLATE "C"
ON CONFLICT (id) DO UPDATE SET
    deliveries = webhooks.deliveries + excluded.deliveries,
    kept_until = greatest(webhooks.kept_until, excluded.kept_until)
RETURNING id, seq, state, xmax = 0 AS new"""
ADD = f"WITH {_ARRIVED} {_INSERT}"


def _add_counted(counts: str) -> str:
    return f"""
WITH {_ARRIVED},
added AS ({_INSERT}, room),
said AS (
    SELECT seq, arrived.room COLLATE "C" AS key, humans, bots, session_id, at, received_at
    FROM arrived JOIN added USING (seq) WHERE humans IS NOT NULL
),
counted AS (
    INSERT INTO whereby_trigger.presence AS stored ({presence.COLUMNS})
    {counts}
    {presence.MERGED}
)
SELECT added.id, added.seq, added.state, added.new, counted.*
FROM added LEFT JOIN counted ON counted.key = added.room
"""  # noqa: S608


ADD_COUNTED = {1: _add_counted(presence.ONE_EACH), 2: _add_counted(presence.TWO_EACH)}
"""Adds webhooks and their counts in one statement, by how many of a room there are at most.

BEGIN and COMMIT would cost a round trip each. A webhook that is a duplicate keeps its number, so no number that was
given here is its own, and it counts for nothing.
"""

STORED_SO = """
SELECT webhooks.id, webhooks.seq, webhooks.state, true AS new,
    CASE WHEN webhooks.state = 'pending' THEN webhooks.reason ELSE '' END AS effect
FROM whereby_trigger.webhooks AS webhooks
JOIN unnest($1::text[], $2::float8[], $3::text[]) AS arrived (id, received_at, owner) USING (id, received_at, owner)
"""
NOTE_EFFECT = "UPDATE whereby_trigger.webhooks SET reason = $3 WHERE seq = $1 AND owner = $2 AND state = 'pending'"
"""Until it is decided, or held, the reason of a pending webhook is what it did when it was stored."""

_DECIDE = f"""
WITH decided AS MATERIALIZED (
    SELECT given.* FROM unnest($1::whereby_trigger.decision[]) AS given
    CROSS JOIN LATERAL (
        SELECT FROM whereby_trigger.webhooks AS webhooks
        WHERE webhooks.seq = given.seq AND webhooks.id = given.id AND webhooks.owner = given.owner
            AND webhooks.state {sql_in(DECIDABLE)}
        FOR UPDATE
    ) AS locked
)
UPDATE whereby_trigger.webhooks AS webhooks SET
    state = decided.state, reason = decided.reason, attempts = decided.attempts, decided_at = decided.decided_at%s
FROM decided WHERE webhooks.seq = decided.seq RETURNING webhooks.seq
"""  # noqa: S608
"""Locks its rows one after the other, in the given order; a plain join would lock them in any order."""

_ERRORS_AND_BODY = """,
    errors = webhooks.errors || ARRAY(SELECT json_array_elements_text(decided.errors::json)),
    body = coalesce(decided.body, webhooks.body)
"""
DECIDE = _DECIDE % ""
DECIDE_WITH_ERRORS = _DECIDE % _ERRORS_AND_BODY
"""Also stores what listeners raised, and redacted bodies; most decisions have neither."""

DECIDED_SO = """
SELECT webhooks.seq FROM whereby_trigger.webhooks AS webhooks
JOIN unnest($1::bigint[], $2::text[], $3::float8[], $4::text[]) AS decided (seq, state, decided_at, owner)
USING (seq, state, decided_at, owner)
"""
"""Finds decisions that an earlier try has committed although its answer was lost."""

HOLD = """
WITH held AS MATERIALIZED (
    SELECT given.* FROM unnest(
        $1::bigint[], $2::text[], $3::text[], $4::float8[], $5::text[], $6::text[]
    ) AS given (seq, id, reason, seconds, errors, owner)
    CROSS JOIN LATERAL (
        SELECT FROM whereby_trigger.webhooks AS webhooks
        WHERE webhooks.seq = given.seq AND webhooks.id = given.id AND webhooks.owner = given.owner
            AND webhooks.state = 'pending'
        FOR UPDATE
    ) AS locked
)
UPDATE whereby_trigger.webhooks AS webhooks SET
    state = 'held', reason = held.reason, attempts = 0, takeovers = 0, crashes = 0,
    held_since = coalesce(webhooks.held_since, whereby_trigger.clock()),
    due_at = coalesce(webhooks.due_at, whereby_trigger.clock() + held.seconds),
    errors = webhooks.errors || ARRAY(SELECT json_array_elements_text(held.errors::json))
FROM held WHERE webhooks.seq = held.seq RETURNING webhooks.seq
"""
HELD_SO = """
SELECT webhooks.seq FROM whereby_trigger.webhooks AS webhooks
JOIN unnest($1::bigint[], $2::text[]) AS held (seq, owner) USING (seq, owner) WHERE webhooks.state = 'held'
"""
"""Finds holds that an earlier try has committed although its answer was lost: only their replica ends them."""

ASK_AGAIN = """
UPDATE whereby_trigger.webhooks SET state = 'pending', reason = '' WHERE seq = ANY (ARRAY(
    SELECT seq FROM whereby_trigger.webhooks WHERE seq = ANY ($1::bigint[]) AND state = 'held' AND owner = $2
    FOR UPDATE SKIP LOCKED
))
RETURNING seq, owner, id, type, body, received_at, queued_at, attempts, takeovers,
    whereby_trigger.clock() - held_since AS held_for, due_at - whereby_trigger.clock() AS due_in, reason AS effect,
    crashes
"""
STILL_HELD = """
SELECT true FROM whereby_trigger.webhooks WHERE seq = ANY ($1::bigint[]) AND state = 'held' AND owner = $2 LIMIT 1
"""
BEGIN_ATTEMPT = """
UPDATE whereby_trigger.webhooks SET attempts = attempts + 1
WHERE seq = $1 AND state = 'pending' AND owner = $2 RETURNING attempts
"""
APPEND_ERROR = """
UPDATE whereby_trigger.webhooks SET errors = array_append(errors, $2) WHERE id = $1 AND body_removed_at IS NULL
"""
PENDING = """
SELECT seq, owner, id, type, body, received_at, queued_at, attempts, takeovers,
    whereby_trigger.clock() - held_since AS held_for, due_at - whereby_trigger.clock() AS due_in, reason AS effect,
    crashes
FROM whereby_trigger.webhooks
WHERE state = 'pending' AND (owner, seq) > ($1, $2) AND owner <= $1 ORDER BY owner, seq LIMIT $3
"""
"""Only the index of pending webhooks has this order: no plan can scan decided ones."""

NEWEST = "SELECT coalesce(max(seq), 0) FROM whereby_trigger.webhooks"
FIND = """
SELECT id, type, room, state, reason, attempts, deliveries, received_at, decided_at, owner, errors, body,
    due_at, body_removed_at, seq
FROM whereby_trigger.webhooks
"""
HISTORY = """
SELECT seq, id, type, room, body, state, reason, received_at, queued_at, decided_at, held_since, due_at
FROM whereby_trigger.webhooks WHERE seq > $1 ORDER BY seq LIMIT $2
"""
FIRST_SINCE = "SELECT seq FROM whereby_trigger.webhooks WHERE received_at >= $1 ORDER BY seq LIMIT 1"
CAN_REPLAY = f"state {sql_in(REPLAYABLE)} AND body_removed_at IS NULL"
REPLAY = """
UPDATE whereby_trigger.webhooks SET state = 'pending', owner = NULL, attempts = 0, takeovers = 0, crashes = 0,
queued_at = $1, reason = '', decided_at = NULL, errors = '{}', held_since = NULL, due_at = NULL
"""
COUNT_PRUNED = """
SELECT count(*) FROM whereby_trigger.webhooks
WHERE state <> 'pending' AND state <> 'held' AND received_at < $1 AND kept_until < $2
"""
PRUNE = """
DELETE FROM whereby_trigger.webhooks WHERE seq = ANY (ARRAY(
    SELECT seq FROM whereby_trigger.webhooks
    WHERE state <> 'pending' AND state <> 'held' AND received_at < $1 AND kept_until < $2
    ORDER BY received_at LIMIT $3 FOR UPDATE SKIP LOCKED
))
"""

TABLES_FREE = """
LOCK TABLE whereby_trigger.webhooks, whereby_trigger.rooms, whereby_trigger.presence IN ROW EXCLUSIVE MODE NOWAIT
"""
LOCKED = """
WITH free AS MATERIALIZED (
    SELECT seq FROM whereby_trigger.webhooks WHERE id = ANY($1::text[]) FOR UPDATE SKIP LOCKED
)
SELECT id FROM whereby_trigger.webhooks WHERE id = ANY($1::text[]) AND seq NOT IN (SELECT seq FROM free)
"""

LAST_CHARACTER = "\U0010ffff"
LATEST_FIRST = "ORDER BY received_at DESC, seq DESC"


NO_COUNT: Final = (None, None, None, None)


class Owned(NamedTuple):
    """Pair an arrival, a decision or a webhook's number with the replica that owns it."""

    what: Any
    owner: str


async def locked(connection: Connection, pieces: Sequence[Any], id_of: Callable[[Any], str]) -> list[bool]:
    """Return for each piece whether another transaction has locked its webhook; raises if a table is locked.

    A webhook that another transaction is storing at this moment is not found.
    """
    async with transaction(connection):
        await connection.execute(TABLES_FREE)
        ids = [id_of(piece) for piece in pieces]
        found = {row["id"] for row in await connection.fetch(LOCKED, ids)}
        return [id in found for id in ids]


async def add(connection: Connection, pieces: Sequence[Owned], *, again: bool) -> list[Added]:
    first: dict[str, Owned] = {}
    # The same id may come twice in a batch, signed at different times.
    repeated: dict[str, list[Arrival]] = {}
    for piece in pieces:
        arrival: Arrival = piece.what
        if arrival.state not in FIRST_STATES:
            raise StoreError(f"no webhook is stored as {arrival.state}")
        if first.setdefault(arrival.id, piece) is not piece:
            repeated.setdefault(arrival.id, []).append(arrival)
    stored = await _stored_before(connection, first) if again else {}
    rows = [_row(piece.what, piece.owner, repeated.get(id, ())) for id, piece in first.items() if id not in stored]
    changes = {id: piece.what.change for id, piece in first.items() if piece.what.change and id not in stored}
    counted = [piece.what for id, piece in first.items() if piece.what.count and id not in stored]
    effects: dict[str, str] = {id: row["effect"] for id, row in stored.items()}
    counts: dict[str, RoomCounts] = {}
    most = _most_of_a_room(counted)
    if changes or most > max(ADD_COUNTED):
        async with transaction(connection):
            if changes:
                await rooms.lock(connection, [change.key for change in changes.values()])
            stored |= await _insert(connection, rows)
            for id, change in changes.items():
                if stored[id]["new"] and (effect := await rooms.change_session(connection, change)):
                    await connection.execute(NOTE_EFFECT, stored[id]["seq"], first[id].owner, effect)
                    effects[id] = effect
            new = [(arrival.count, arrival.received_at) for arrival in counted if stored[arrival.id]["new"]]
            counts = await presence.write(connection, new)
    elif counted:
        inserted = await _insert(connection, rows, ADD_COUNTED[most])
        stored |= inserted
        counts = {row["key"]: RoomCounts(*row[4:]) for row in inserted.values() if row["key"] is not None}
    else:
        stored |= await _insert(connection, rows)
    return [
        _added(piece, stored[piece.what.id], effects, counts, is_first=first[piece.what.id] is piece)
        for piece in pieces
    ]


def _most_of_a_room(arrivals: Sequence[Arrival]) -> int:
    keys = [arrival.room for arrival in arrivals]
    # Mostly there is at most one, and to count them takes much longer.
    return min(len(keys), 1) if len(set(keys)) == len(keys) else max(Counter(keys).values())


async def _insert(connection: Connection, rows: list[tuple[Any, ...]], statement: str = ADD) -> dict[str, Any]:
    return {row["id"]: row for row in await connection.fetch(statement, rows)} if rows else {}


async def _stored_before(connection: Connection, first: dict[str, Owned]) -> dict[str, Any]:
    tried = [(piece.what.id, piece.what.received_at, piece.owner) for piece in first.values()]
    return {row["id"]: row for row in await connection.fetch(STORED_SO, *zip(*tried, strict=True))}


def _row(arrival: Arrival, owner: str, repeated: Sequence[Arrival]) -> tuple[Any, ...]:
    state, received_at, kept_until = arrival.state, arrival.received_at, arrival.kept_until
    decided_at = None if state is State.PENDING else received_at
    if repeated:
        kept_until = max(kept_until, *(one.kept_until for one in repeated))
    count = arrival.count
    return (
        *(arrival.id, arrival.type, arrival.room, arrival.body, received_at),
        *(owner, state, arrival.reason, decided_at, 1 + len(repeated), kept_until),
        *(NO_COUNT if count is None else (count.humans, count.bots, count.session_id, count.at)),
    )


def _added(
    piece: Owned, row: Any, effects: Mapping[str, str], counts: Mapping[str, RoomCounts], *, is_first: bool
) -> Added:
    arrival: Arrival = piece.what
    if not (row["new"] and is_first):
        return Added(row["seq"], True, State(row["state"]))
    said = None if arrival.count is None else counts.get(arrival.count.key)
    effect = effects.get(arrival.id, "")
    # An earlier try may have stored it, and it may have been decided since.
    state = arrival.state if row["state"] == arrival.state else State(row["state"])
    return Added(row["seq"], False, state, piece.owner, effect=effect, counts=said)


async def decide(connection: Connection, pieces: Sequence[Owned], *, again: bool) -> list[bool]:
    first: dict[int, Owned] = {}
    for piece in pieces:
        if piece.what.state in UNDECIDED:
            raise StoreError(f"{piece.what.state} is no decision")
        first.setdefault(piece.what.seq, piece)
    # In the order in which arrivals lock rows: no two batches can deadlock.
    rows = [_decided(piece.what, piece.owner) for piece in sorted(first.values(), key=lambda piece: piece.what.id)]
    plain = all(piece.what.body is None and not piece.what.errors for piece in first.values())
    decided = {row["seq"] for row in await connection.fetch(DECIDE if plain else DECIDE_WITH_ERRORS, rows)}
    if again:
        tried = [(piece.what.seq, piece.what.state, piece.what.decided_at, piece.owner) for piece in first.values()]
        decided |= {row["seq"] for row in await connection.fetch(DECIDED_SO, *zip(*tried, strict=True))}
    return [piece.what.seq in decided and first[piece.what.seq] is piece for piece in pieces]


def _decided(decision: Decision, owner: str) -> tuple[Any, ...]:
    return (
        *(decision.seq, decision.id, owner, decision.state, decision.reason, decision.attempts, decision.decided_at),
        *(json.dumps(decision.errors) if decision.errors else "[]", decision.body),
    )


async def hold(connection: Connection, pieces: Sequence[Owned], *, again: bool) -> list[bool]:
    first: dict[int, Owned] = {}
    for piece in pieces:
        first.setdefault(piece.what.seq, piece)
    rows = [_held(piece.what, piece.owner) for piece in sorted(first.values(), key=lambda piece: piece.what.id)]
    held = {row["seq"] for row in await connection.fetch(HOLD, *zip(*rows, strict=True))}
    if again:
        tried = [(piece.what.seq, piece.owner) for piece in first.values()]
        held |= {row["seq"] for row in await connection.fetch(HELD_SO, *zip(*tried, strict=True))}
    return [piece.what.seq in held and first[piece.what.seq] is piece for piece in pieces]


def _held(holding: Holding, owner: str) -> tuple[Any, ...]:
    errors = json.dumps(holding.errors) if holding.errors else "[]"
    return holding.seq, holding.id, holding.reason, holding.seconds, errors, owner


async def ask_again(connection: Connection, seqs: Sequence[int], owner: str) -> list[Pending] | None:
    """Make held webhooks pending, but those that are locked; return None if there are no others."""
    rows = await connection.fetch(ASK_AGAIN, list(seqs), owner)
    if not rows and await connection.fetchval(STILL_HELD, list(seqs), owner):
        return None
    return sorted((Pending(*row) for row in rows), key=lambda row: row.seq)


async def begin_attempt(connection: Connection, pieces: Sequence[Owned], *, again: bool) -> list[int]:
    return [await connection.fetchval(BEGIN_ATTEMPT, piece.what, piece.owner) or 0 for piece in pieces]


async def append_error(connection: Connection, pieces: Sequence[tuple[str, str]], *, again: bool) -> list[None]:
    # By webhook, as others lock rows; each one's errors stay in order.
    in_order = sorted(pieces, key=lambda piece: piece[0])
    await connection.executemany(APPEND_ERROR, in_order)
    return [None] * len(pieces)


async def pending(connection: Connection, owner: str, after: int, limit: int) -> list[Pending]:
    return [Pending(*row) for row in await connection.fetch(PENDING, owner, after, limit)]


async def newest(connection: Connection) -> int:
    return int(await connection.fetchval(NEWEST))


async def find(connection: Connection, query: Query) -> list[Record]:
    selected, values = select(query)
    return [record(row) for row in await connection.fetch(f"{FIND} {selected}", *values)]


async def history(connection: Connection, after: int, limit: int) -> list[PastWebhook]:
    return [_past(row) for row in await connection.fetch(HISTORY, after, limit)]


async def first_since(connection: Connection, moment: float) -> int | None:
    found: int | None = await connection.fetchval(FIRST_SINCE, moment)
    return found


async def replay(connection: Connection, query: Query, now: float) -> list[str]:
    selected, values = select(query, now, also=CAN_REPLAY)
    # Asked of each row again: if it was locked, it may have changed since it was selected.
    chosen = f"seq IN (SELECT seq FROM whereby_trigger.webhooks {selected}) AND {CAN_REPLAY}"  # noqa: S608
    statement = f"{REPLAY} WHERE {chosen} RETURNING id"
    return [row["id"] for row in await connection.fetch(statement, *values)]


async def replayable(connection: Connection, query: Query) -> list[str]:
    selected, values = select(query, also=CAN_REPLAY)
    statement = f"SELECT id FROM whereby_trigger.webhooks {selected}"  # noqa: S608
    return [row["id"] for row in await connection.fetch(statement, *values)]


async def prunable(connection: Connection, before: float, now: float) -> int:
    return int(await connection.fetchval(COUNT_PRUNED, before, now))


async def prune(connection: Connection, before: float, now: float, limit: int) -> int:
    """Delete at most `limit` decided webhooks received before `before` and kept until before `now`; return how many."""
    return affected(await connection.execute(PRUNE, before, now, limit))


def select(query: Query, *first: Any, also: str = "true") -> tuple[str, list[Any]]:
    """Return the conditions of a query, its order and its limit, and the values, of which `first` are used already."""
    selection = Selection(*first)
    if query.ids is not None:
        selection.where("id = ANY({})", list(query.ids))
    if query.prefix is not None:
        selection.where("id >= {} AND id < {}", query.prefix, query.prefix + LAST_CHARACTER)
    if query.state is not None:
        selection.where("state = {}", query.state)
    if query.type is not None:
        selection.where("type = {}", query.type)
    if query.room is not None and query.room.startswith("/"):
        selection.where("substr(room, strpos(room, '/')) = {}", room_path(query.room))
    elif query.room is not None:
        selection.where("room = {}", query.room)
    if query.since is not None:
        selection.where("received_at >= {}", query.since)
    if query.until is not None:
        selection.where("received_at < {}", query.until)
    where = f"{selection.conditions} AND {also}"
    limit = "" if query.limit is None else f"LIMIT {int(query.limit)}"
    if query.since is None and query.until is None:
        return f"WHERE {where} ORDER BY seq DESC {limit}", selection.values
    # The decided webhooks of a time are found by their index, and so are the pending ones, which are few. Those of a
    # room are found by its own index, whatever their state.
    of_a_room = query.room is not None and not query.room.startswith("/")
    states = ("",) if of_a_room else (" AND state = 'pending'", " AND state <> 'pending'")
    each = [
        f"(SELECT seq FROM whereby_trigger.webhooks WHERE {where}{state} {LATEST_FIRST} {limit})"  # noqa: S608
        for state in states
    ]
    return f"WHERE seq = ANY (ARRAY({' UNION ALL '.join(each)})) {LATEST_FIRST} {limit}", selection.values


def _past(row: Any) -> PastWebhook:
    seq, id, type, room, body, state, *others = row
    return PastWebhook(seq, id, type, room, body, State(state), *others)


def record(row: Any) -> Record:
    return Record(**{**row, "state": State(row["state"]), "errors": tuple(row["errors"])})


WORKLOAD = f"""
SELECT 'pending' AS what, count(*)::float8 AS counted FROM whereby_trigger.webhooks WHERE state = 'pending'
UNION ALL
SELECT 'held', count(*) FROM whereby_trigger.webhooks WHERE state = 'held'
UNION ALL
SELECT 'oldest', min(queued_at) FROM whereby_trigger.webhooks WHERE state = 'pending'
UNION ALL
SELECT state, count(*) FROM whereby_trigger.rooms WHERE state NOT {sql_in(OVER)} GROUP BY state
"""  # noqa: S608


async def workload(connection: Connection, within: float) -> Workload | None:
    """Count; return None if that takes the server longer than `within` seconds."""
    try:
        async with transaction(connection):
            await connection.execute(f"SET LOCAL statement_timeout = '{within * 1000:.0f}ms'")
            found: dict[str, Any] = {row["what"]: row["counted"] for row in await connection.fetch(WORKLOAD)}
    except asyncpg.QueryCanceledError:
        return None
    pending, held, oldest = int(found.pop("pending")), int(found.pop("held")), found.pop("oldest")
    return Workload(pending, held, oldest, {RoomState(state): int(rooms) for state, rooms in found.items()})
