"""What each verb on rooms says to PostgreSQL, inside a transaction that holds the locks of the rooms it changes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import structs

from whereby_trigger.store import room_rules, stay
from whereby_trigger.store.postgres import presence
from whereby_trigger.store.postgres.connection import Connection, Selection, affected, transaction
from whereby_trigger.store.presence import SessionChange
from whereby_trigger.store.records import Room, RoomClaim, RoomMove, RoomQuery, RoomRequest
from whereby_trigger.store.room_rules import TOO_OLD, Change, OpenRoom, RoomEvent, Successor
from whereby_trigger.store.states import OWNED, RoomState, RunOutcome
from whereby_trigger.store.stay import Bounds
from whereby_trigger.webhook import room_path

LOCK = """
SELECT pg_advisory_xact_lock(hashtextextended('whereby_trigger ' || key, 0))
FROM unnest($1::text[]) AS given (key)
"""
WAIT = """
INSERT INTO whereby_trigger.rooms (key, url, state, webhook, session_id, asked_at, queued_at, began_at)
VALUES ($1, $2, 'waiting', $3, $4, $5, COALESCE($6, whereby_trigger.clock()), $7)
"""
SESSION_CHANGES = """
SELECT body, received_at FROM whereby_trigger.webhooks
WHERE room = $1 AND type IN ('room.session.started', 'room.session.ended')
"""
CHANGES_AROUND = """
SELECT key, body, received_at
FROM whereby_trigger.webhooks AS webhooks JOIN whereby_trigger.rooms AS rooms ON room = key
WHERE rooms.id = $1 AND type IN ('room.session.started', 'room.session.ended')
"""
FIND_OPEN = """
SELECT id, state, owner, stop, session_id, asked_at, successor FROM whereby_trigger.rooms
WHERE key = $1 AND state NOT IN ('ended', 'failed') FOR UPDATE
"""
NOT_LOCKED = """
SELECT key FROM unnest($1::text[]) AS given (key)
WHERE pg_try_advisory_xact_lock_shared(hashtextextended('whereby_trigger ' || key, 0))
"""
LOOK_AT_OPEN = """
SELECT key, id, state, owner, stop, session_id, asked_at, successor FROM whereby_trigger.rooms
WHERE key = ANY ($1::text[]) AND state NOT IN ('ended', 'failed')
"""
LOCK_ROOM = """
SELECT pg_advisory_xact_lock(hashtextextended('whereby_trigger ' || key, 0))
FROM whereby_trigger.rooms WHERE id = $1
"""
FIND_OWNED = """
SELECT id, state, owner, stop, session_id, asked_at, successor FROM whereby_trigger.rooms
WHERE id = $1 AND owner = $2 FOR UPDATE
"""
WRITE = """
UPDATE whereby_trigger.rooms SET
    state = $2,
    reason = COALESCE($3, reason),
    since = CASE WHEN state = $2 THEN since ELSE whereby_trigger.clock() END,
    stop = $4,
    successor = $5
WHERE id = $1
"""
COLUMNS = "id, key, url, state, owner, webhook, attempt, restarts, pid, stop, reason, queued_at, since"
EMPTY = """(
    SELECT whereby_trigger.clock() - greatest(humans_stored_at, rooms.queued_at) FROM whereby_trigger.presence
    WHERE presence.key = rooms.key AND humans = 0
    AND (presence.session_id <> rooms.session_id AND changed_at < rooms.asked_at) IS NOT TRUE
)"""
"""The seconds for which a room is known to hold no human since its assistant was asked for, or NULL.

What an earlier session left behind says nothing of who has come to this one.
"""

LASTED = "whereby_trigger.clock() - rooms.began_at"
# A program that knows no bounds takes a room without noting when; it had it since it was asked for, at the longest.
# A room's age counts from when it may be taken: a pause before a restart may be longer than max_age.
TAKE = f"""
WITH taken AS (UPDATE whereby_trigger.rooms SET
    state = 'starting', owner = $1, attempt = attempt + 1, since = whereby_trigger.clock(), ticket = $3,
    began_at = COALESCE(began_at, CASE WHEN attempt > 0 THEN queued_at ELSE whereby_trigger.clock() END)
WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.rooms WHERE state = 'waiting'
    AND NOT (since <= whereby_trigger.clock() AND whereby_trigger.clock() < not_before)
    AND greatest(since, not_before) >= whereby_trigger.clock() - $4::float8
    AND ({EMPTY} >= $5::float8 OR {LASTED} >= $6::float8) IS NOT TRUE
    AND NOT (rooms.attempt > 0 AND $5 IS NOT NULL AND {EMPTY} IS NOT NULL)
    AND EXISTS (SELECT FROM whereby_trigger.replicas WHERE id = $1 AND expires > whereby_trigger.clock())
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING id, key, webhook, owner, attempt, since)
INSERT INTO whereby_trigger.runs (entry, key, webhook, replica, attempt, started_at)
SELECT id, key, webhook, owner, attempt, since FROM taken ORDER BY id
"""  # noqa: S608
"""A run begins with its room's taking: if the answer is lost, both are there, and the ticket finds them."""

TAKEN = f"""
SELECT {", ".join(f"rooms.{column}" for column in COLUMNS.split(", "))}, webhooks.body,
    COALESCE(webhooks.seq, (SELECT max(seq) FROM whereby_trigger.webhooks), 0) AS seq
FROM whereby_trigger.rooms AS rooms LEFT JOIN whereby_trigger.webhooks AS webhooks ON webhooks.id = rooms.webhook
WHERE rooms.owner = $1 AND rooms.state = 'starting' AND rooms.ticket = ANY($2::text[]) ORDER BY rooms.id
"""  # noqa: S608
TABLES_FREE = "LOCK TABLE whereby_trigger.rooms IN ROW EXCLUSIVE MODE NOWAIT"
MOVE = """
WITH moved AS (UPDATE whereby_trigger.rooms SET
    state = $2,
    reason = $3,
    stop = $4,
    successor = $5,
    owner = CASE WHEN $6 THEN owner END,
    pid = CASE WHEN $6 THEN COALESCE($7, pid) END,
    since = whereby_trigger.clock(),
    not_before = CASE WHEN $8::float8 > 0 THEN whereby_trigger.clock() + $8 ELSE 0 END,
    restarts = COALESCE($9, restarts),
    ticket = $10
WHERE id = $1 RETURNING id, attempt, state, reason, since)
UPDATE whereby_trigger.runs AS runs SET
    live_at = CASE WHEN moved.state = 'live' THEN moved.since ELSE live_at END,
    pid = COALESCE($7, pid),
    ended_at = CASE WHEN $11::text IS NULL THEN ended_at ELSE moved.since END,
    outcome = $11,
    reason = CASE WHEN $11 IS NULL THEN runs.reason ELSE moved.reason END,
    exit_code = $12, signal = $13,
    exception = CASE WHEN silent THEN NULL ELSE $14 END, output = CASE WHEN silent THEN '' ELSE $15 END
FROM moved WHERE runs.entry = moved.id AND runs.attempt = moved.attempt AND runs.ended_at IS NULL
"""
"""In one statement, which costs no further round trip; the move holds even if a program without runs took the room."""

MOVED_SO = "SELECT true FROM whereby_trigger.rooms WHERE id = $1 AND ticket = $2"
OWNED_BY = "SELECT id, key FROM whereby_trigger.rooms WHERE owner = $1 LIMIT $2"
FIND_RELEASED = """
SELECT id, state, owner, stop, session_id, asked_at, successor FROM whereby_trigger.rooms
WHERE owner = $1 AND id = ANY($2::bigint[]) FOR UPDATE SKIP LOCKED
"""
RELEASE = """
WITH released AS (UPDATE whereby_trigger.rooms AS rooms SET
    state = given.state, reason = given.reason, successor = given.successor, owner = NULL, pid = NULL,
    since = whereby_trigger.clock(), not_before = 0, ticket = NULL
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS given (id, state, reason, successor)
WHERE rooms.id = given.id RETURNING rooms.id, rooms.attempt, rooms.since)
UPDATE whereby_trigger.runs AS runs SET ended_at = released.since, reason = $5, outcome = $6
FROM released WHERE runs.entry = released.id AND runs.attempt = released.attempt AND runs.ended_at IS NULL
"""
END_OLD = """
UPDATE whereby_trigger.rooms
SET state = 'ended', reason = $3, since = whereby_trigger.clock()
WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.rooms WHERE state = 'waiting' AND since < whereby_trigger.clock() - $1::float8
    AND not_before < whereby_trigger.clock() - $1 AND successor IS NULL ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""
OLD_WITH_SUCCESSOR = """
SELECT id, key FROM whereby_trigger.rooms WHERE state = 'waiting' AND since < whereby_trigger.clock() - $1::float8
AND not_before < whereby_trigger.clock() - $1 AND successor IS NOT NULL ORDER BY since LIMIT $2
"""
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended('whereby_trigger ' || $1, 0))"
FIND_OLD = """
SELECT id, state, owner, stop, session_id, asked_at, successor FROM whereby_trigger.rooms
WHERE id = $1 AND state = 'waiting' AND since < whereby_trigger.clock() - $2::float8
AND not_before < whereby_trigger.clock() - $2 AND successor IS NOT NULL FOR UPDATE SKIP LOCKED
"""
NOW = "SELECT whereby_trigger.clock()"
STOPPING = f"""
SELECT {COLUMNS} FROM whereby_trigger.rooms
WHERE owner = $1 AND (
    stop IS NOT NULL OR (state IN ('starting', 'live') AND ({EMPTY} >= $2::float8 OR {LASTED} >= $3::float8))
)
"""  # noqa: S608
WAITING_AT_BOUND = f"""
SELECT {COLUMNS} FROM whereby_trigger.rooms
WHERE state = 'waiting' AND ({EMPTY} >= $1::float8 OR {LASTED} >= $2::float8) LIMIT $3
"""  # noqa: S608
LOCK_FREE = """
SELECT key FROM unnest($1::text[]) AS given (key)
WHERE pg_try_advisory_xact_lock(hashtextextended('whereby_trigger ' || key, 0))
"""
TO_BOUND = f"""
SELECT rooms.id, state, owner, stop, session_id, asked_at, successor, {EMPTY} AS empty, {LASTED} AS lasted
FROM whereby_trigger.rooms AS rooms
WHERE rooms.id = ANY($2::bigint[]) AND rooms.key = ANY($3::text[])
AND (state = 'waiting' OR (owner = $1 AND state IN ('starting', 'live') AND stop IS NULL))
FOR UPDATE OF rooms SKIP LOCKED
"""  # noqa: S608
READ = f"SELECT {COLUMNS} FROM whereby_trigger.rooms WHERE id < $2 ORDER BY id DESC LIMIT $1"  # noqa: S608
KEYS = """
WITH RECURSIVE hosts (host) AS (
    (SELECT split_part(room, '/', 1) FROM whereby_trigger.webhooks WHERE room IS NOT NULL ORDER BY room LIMIT 1)
    UNION ALL SELECT (
        SELECT split_part(room, '/', 1) FROM whereby_trigger.webhooks WHERE room > hosts.host || '0'
        ORDER BY room LIMIT 1
    ) FROM hosts WHERE host IS NOT NULL
)
SELECT host || $1::text AS key FROM hosts
CROSS JOIN LATERAL (SELECT FROM whereby_trigger.webhooks WHERE room = hosts.host || $1::text LIMIT 1) AS found
UNION SELECT key FROM whereby_trigger.rooms WHERE substr(key, strpos(key, '/')) = $1
ORDER BY key
"""
"""The hosts of all webhooks are found one by one in the index of rooms, since few have one: "0" follows "/" there.

With EXISTS for LIMIT, a plan that is made while the store is empty would read the whole index.
"""

FORGET = """
WITH forgotten AS (DELETE FROM whereby_trigger.rooms WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.rooms WHERE state IN ('ended', 'failed') AND since < $1
    ORDER BY since LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING id),
runs AS (DELETE FROM whereby_trigger.runs WHERE entry = ANY (ARRAY(SELECT id FROM forgotten)))
SELECT count(*) FROM forgotten
"""


class Move(NamedTuple):
    """Ask for a change of a room, under a ticket by which a repeated call recognises its own change.

    `key` is the room's, if it is known; it only says what must not overtake what.
    """

    move: RoomMove
    key: str
    owner: str
    ticket: str


async def lock(connection: Connection, keys: Iterable[str]) -> None:
    """Lock some rooms until the transaction ends, always in the same order."""
    await connection.execute(LOCK, sorted(set(keys)))


async def locked(connection: Connection, pieces: Sequence[Any]) -> list[bool]:
    """Return that no piece is known to be locked. Raises if the whole table is."""
    async with transaction(connection):
        await connection.execute(TABLES_FREE)
    return [False for _ in pieces]


async def request_unchanged(
    connection: Connection, pieces: Sequence[RoomRequest], *, again: bool
) -> list[RoomClaim | None]:
    """Answer requests that change nothing, such as those of a room with an assistant; None for the others.

    Two statements read the rooms of all, and wait for no lock.
    """
    # A transaction that has a room's lock may be ending an assistant in a room that was empty until the webhook that
    # asks. Such a request is answered None, and waits for the lock. The locks come before the read: a transaction that
    # gets a lock later already sees that webhook.
    free = [row["key"] for row in await connection.fetch(NOT_LOCKED, list({piece.key for piece in pieces}))]
    found = await connection.fetch(LOOK_AT_OPEN, free)
    entries = {key: _open(entry) for key, entry in ((row.pop("key"), row) for row in map(dict, found))}
    return [_unchanged(entries.get(piece.key), piece) for piece in pieces]


def _unchanged(entry: OpenRoom | None, request: RoomRequest) -> RoomClaim | None:
    if entry is None or room_rules.needs_changes(entry, request):
        return None
    answer = room_rules.requested(entry, request, [], None)
    return answer.claim if answer.change is None and answer.opens is None else None


async def request(connection: Connection, pieces: Sequence[RoomRequest], *, again: bool) -> list[RoomClaim]:
    return [await _request(connection, piece) for piece in pieces]


async def _request(connection: Connection, request: RoomRequest) -> RoomClaim:
    async with transaction(connection):
        await lock(connection, [request.key])
        open = await _find_open(connection, request.key)
        changes = await _session_changes(connection, request.key) if room_rules.needs_changes(open, request) else []
        # A new entry is stamped by the statement that stores it.
        now = None if open is None else await connection.fetchval(NOW)
        answer = room_rules.requested(open, request, changes, now)
        if answer.change is not None:
            await _write(connection, answer.change)
        elif answer.opens is not None:
            await _wait(connection, answer.opens)
        return answer.claim


async def _session_changes(connection: Connection, key: str) -> list[SessionChange]:
    return stay.session_changes(key, [tuple(row) for row in await connection.fetch(SESSION_CHANGES, key)])


async def _changes_around(connection: Connection, entry: OpenRoom) -> list[SessionChange]:
    """Return what the webhooks of an entry's room say of its sessions, if that is needed to judge it."""
    rows = await connection.fetch(CHANGES_AROUND, entry.id) if room_rules.is_unnamed(entry) else []
    return [said for key, body, at in rows for said in stay.session_changes(key, [(body, at)])]


async def take(
    connection: Connection, owner: str, slots: int, tickets: tuple[str, ...], max_age: float, bounds: Bounds
) -> list[Room]:
    """Take rooms under the last ticket, and find again those of the other tickets, whose answers were lost."""
    values = (owner, slots, tickets[-1], max_age, bounds.leave_when_empty, bounds.max_duration)
    taken = affected(await connection.execute(TAKE, *values)) if slots > 0 else 0
    if not taken and len(tickets) == 1:
        return []
    rooms = [_room(row) for row in await connection.fetch(TAKEN, owner, tickets)]
    presences = await presence.find(connection, frozenset(room.key for room in rooms))
    return [structs.replace(room, presence=presences[room.key]) for room in rooms]


async def move(connection: Connection, pieces: Sequence[Move], *, again: bool) -> list[bool]:
    return [await _move(connection, piece, again) for piece in pieces]


async def _move(connection: Connection, piece: Move, again: bool) -> bool:
    move = piece.move
    async with transaction(connection):
        await connection.execute(LOCK_ROOM, move.id)
        row = await connection.fetchrow(FIND_OWNED, move.id, piece.owner)
        open = None if row is None else _open(row)
        changes = [] if open is None else await _changes_around(connection, open)
        change = None if open is None else room_rules.moved(open, move.state, move.reason, changes)
        if change is None:
            return again and bool(await connection.fetchval(MOVED_SO, move.id, piece.ticket))
        entry, run = change.entry, move.run
        await connection.execute(
            MOVE,
            *(entry.id, entry.state, change.reason, entry.stop, entry.successor, entry.state in OWNED, move.pid),
            *(move.delay, move.restarts, piece.ticket, room_rules.run_ended(change, run.outcome)),
            *(run.exit_code, run.signal, run.exception, run.output),
        )
        if change.opens is not None:
            await _wait(connection, change.opens)
        return True


async def stop(connection: Connection, pieces: Sequence[tuple[str, str]], *, again: bool) -> list[RoomState | None]:
    return [await _stop(connection, key, reason) for key, reason in pieces]


async def _stop(connection: Connection, key: str, reason: str) -> RoomState | None:
    async with transaction(connection):
        await lock(connection, [key])
        open = await _find_open(connection, key)
        if open is None:
            return None
        await _write(connection, room_rules.change(open, RoomEvent.STOPPED, reason))
        return open.state


async def change_session(connection: Connection, said: SessionChange) -> str:
    """Ask the assistants of a session that is over to end; return in words what this did.

    The caller holds the room's lock.
    """
    open = await _find_open(connection, said.key)
    if open is None:
        return ""
    change = room_rules.session_changed(open, said, await _changes_around(connection, open))
    if change.entry != open:
        await _write(connection, change)
    return room_rules.effect_of(open, change)


async def release(
    connection: Connection,
    owner: str,
    reason: str,
    outcome: RunOutcome,
    *,
    limit: int,
    too_old: float | None = None,
) -> int:
    """Let rooms of a replica that is gone wait for another one, except those whose end was asked for.

    `reason` and `outcome` are how its runs ended.
    `too_old` is the time before which the replica was gone, if that is too long ago: all of its rooms end then, and a
    successor that was asked for before that time does not start. At most `limit` rooms are released, since each is
    locked, and the server has room for so many locks only; return how many.
    """
    found = await connection.fetch(OWNED_BY, owner, limit)
    await lock(connection, [room["key"] for room in found])
    rows = await connection.fetch(FIND_RELEASED, owner, [room["id"] for room in found])
    changes = [room_rules.released(_open(row), reason, too_old) for row in rows]
    given = [(change.entry.id, change.entry.state, change.reason, change.entry.successor) for change in changes]
    if given:
        await connection.execute(RELEASE, *zip(*given, strict=True), reason, outcome)
    for change in changes:
        if change.opens is not None:
            await _wait(connection, change.opens)
    return len(rows)


async def end_old(connection: Connection, max_age: float, limit: int) -> int:
    """End at most `limit` rooms that have waited for longer than `max_age` seconds, unstarted; return how many."""
    # First: a room's lock is never waited for while rows of others are locked.
    ended = await _end_old_with_successor(connection, max_age, limit)
    return ended + affected(await connection.execute(END_OLD, max_age, limit, TOO_OLD))


async def _end_old_with_successor(connection: Connection, max_age: float, limit: int) -> int:
    ended = 0
    for id, key in await connection.fetch(OLD_WITH_SUCCESSOR, max_age, limit):
        # A room that is busy is left for the next time.
        if await connection.fetchval(TRY_LOCK, key) and (row := await connection.fetchrow(FIND_OLD, id, max_age)):
            oldest = await connection.fetchval(NOW) - max_age
            await _write(connection, room_rules.change(_open(row), RoomEvent.TOO_OLD, TOO_OLD, oldest=oldest))
            ended += 1
    return ended


async def stopping(connection: Connection, owner: str, bounds: Bounds) -> list[Room]:
    """Return the rooms of a replica that were asked to end, and with no `stop` those that `apply_bounds` asks."""
    rows = await connection.fetch(STOPPING, owner, bounds.leave_when_empty, bounds.max_duration)
    return [_room(row) for row in rows]


async def waiting_at_bound(connection: Connection, bounds: Bounds, limit: int) -> list[Room]:
    values = (bounds.leave_when_empty, bounds.max_duration, limit)
    return [_room(row) for row in await connection.fetch(WAITING_AT_BOUND, *values)]


async def apply_bounds(connection: Connection, rooms: Sequence[Room], owner: str, bounds: Bounds) -> None:
    """Ask the assistants of rooms to end, or end a room that waits, if a bound is still reached.

    A room that somebody else has locked is left out: the next look finds it again.
    """
    async with transaction(connection):
        free = [row["key"] for row in await connection.fetch(LOCK_FREE, sorted(room.key for room in rooms))]
        for row in await connection.fetch(TO_BOUND, owner, [room.id for room in rooms], free):
            entry = dict(row)
            reason = bounds.reached(entry.pop("empty"), entry.pop("lasted"))
            if reason is not None:
                change = room_rules.change(_open(entry), RoomEvent.BOUND_REACHED, reason)
                await _write(connection, change)


async def read(connection: Connection, limit: int | None, below: int) -> list[Room]:
    return [_room(row) for row in await connection.fetch(READ, limit, below)]


async def keys_of(connection: Connection, name: str) -> list[str]:
    return [row["key"] for row in await connection.fetch(KEYS, room_path(name))]


async def find(connection: Connection, query: RoomQuery) -> list[Room]:
    statement, values = select(query)
    return [_room(row) for row in await connection.fetch(statement, *values)]


def select(query: RoomQuery) -> tuple[str, list[Any]]:
    """Return the statement of a query, and its values."""
    selection = Selection()
    if query.id is not None:
        selection.where("id = {}", query.id)
    if query.room is not None:
        selection.where_room(query.room)
    if query.webhooks is not None:
        selection.where("webhook = ANY({})", list(query.webhooks))
    if query.open:
        selection.where("state NOT IN ('ended', 'failed')")
    if query.state is not None:
        selection.where("state = {}", query.state)
    if query.since is not None:
        selection.where(
            "(state NOT IN ('ended', 'failed') OR state IN ('ended', 'failed') AND since >= {})", query.since
        )
    if query.until is not None:
        selection.where("queued_at < {}", query.until)
    if query.owner is not None:
        selection.where("owner = {}", query.owner)
    return f"SELECT {COLUMNS} FROM whereby_trigger.rooms {selection.ordered('id DESC', query.limit)}", selection.values  # noqa: S608


async def forget(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` rooms that were over before a time, and their runs; return how many rooms."""
    return int(await connection.fetchval(FORGET, before, limit))


async def _find_open(connection: Connection, key: str) -> OpenRoom | None:
    row = await connection.fetchrow(FIND_OPEN, key)
    return None if row is None else _open(row)


def _open(row: Any) -> OpenRoom:
    return OpenRoom(**{**row, "state": RoomState(row["state"])})


async def _write(connection: Connection, change: Change) -> None:
    entry = change.entry
    await connection.execute(WRITE, entry.id, entry.state, change.reason, entry.stop, entry.successor)
    if change.opens is not None:
        await _wait(connection, change.opens)


async def _wait(connection: Connection, opens: Successor) -> None:
    await connection.execute(WAIT, *structs.astuple(opens.request), opens.kept_at, opens.began_at)


def _room(row: Any) -> Room:
    return Room(**{**row, "state": RoomState(row["state"])})
