"""What each verb on rooms says to SQLite, as plain functions of a connection inside a transaction."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import structs

from whereby_trigger.store import room_rules, stay
from whereby_trigger.store.presence import SessionChange
from whereby_trigger.store.records import Room, RoomClaim, RoomMove, RoomQuery, RoomRequest, RunReport, WebhooksAfter
from whereby_trigger.store.room_rules import TOO_OLD, Change, OpenRoom, RoomEvent, Successor
from whereby_trigger.store.sqlite import history, presence
from whereby_trigger.store.states import OWNED, RoomState, RunOutcome
from whereby_trigger.store.stay import Bounds
from whereby_trigger.webhook import room_path

OPEN = "state NOT IN ('ended', 'failed')"
"""The condition of the index `rooms_open`, word for word: SQLite uses that for no other, such as `state = 'waiting'`.

Without it, each look would read all entries that are over, which may be hundreds of thousands.
"""

WAIT = """
INSERT INTO rooms (key, url, state, webhook, session_id, asked_at, queued_at, since, began_at)
VALUES (:key, :url, 'waiting', :webhook, :session_id, :asked_at, COALESCE(:kept_at, :now), :now, :began_at)
"""
SESSION_CHANGES = """
SELECT body, received_at FROM webhooks INDEXED BY webhooks_sessions
WHERE room = ? AND type IN ('room.session.started', 'room.session.ended')
"""
CHANGES_AROUND = """
SELECT key, body, received_at FROM rooms JOIN webhooks INDEXED BY webhooks_sessions ON room = key
WHERE rooms.id = ? AND type IN ('room.session.started', 'room.session.ended')
"""
FIND_OPEN = """
SELECT id, state, owner, stop, session_id, asked_at, successor FROM rooms
WHERE key = ? AND state NOT IN ('ended', 'failed')
"""
FIND_OWNED = """
SELECT id, state, owner, stop, session_id, asked_at, successor FROM rooms WHERE id = ? AND owner = ?
"""
WRITE = """
UPDATE rooms SET
    state = :state,
    reason = COALESCE(:reason, reason),
    since = CASE WHEN state = :state THEN since ELSE :now END,
    stop = :stop,
    successor = :successor
WHERE id = :id
"""
EMPTY = """(
    SELECT :now - MAX(humans_stored_at, rooms.queued_at) FROM presence
    WHERE presence.key = rooms.key AND humans = 0
    AND (presence.session_id <> rooms.session_id AND changed_at < rooms.asked_at) IS NOT TRUE
)"""
"""The seconds for which a room is known to hold no human since its assistant was asked for, or NULL.

What an earlier session left behind says nothing of who has come to this one.
"""

LASTED = """
CASE WHEN rooms.began_boot = NULLIF(:boot, '') THEN :up - rooms.began_up ELSE :now - rooms.began_at END
"""
"""The seconds since a room was first taken, or kept as a successor, or NULL: by the boot clock within a boot."""

REACHED = f"({EMPTY} >= :leave_when_empty OR ({LASTED}) >= :max_duration)"
"""True if a bound is reached, or else false or NULL; which one it is, and how it reads, is up to `Bounds.reached`."""

KEPT_WAITING = f"(rooms.attempt > 0 AND :leave_when_empty IS NOT NULL AND {EMPTY} IS NOT NULL)"

# If the time is before `since`, the clock was set back, nobody knows by how much: the room waits no longer.
# Its age counts from when it may be taken: a pause before a restart may be longer than max_age.
NEXT = f"""
SELECT id FROM rooms INDEXED BY rooms_open
WHERE {OPEN} AND state = 'waiting' AND NOT (since <= :now AND :now < not_before) AND MAX(since, not_before) >= :oldest
AND {REACHED} IS NOT TRUE AND NOT {KEPT_WAITING}
ORDER BY id LIMIT :slots
"""  # noqa: S608
# A program that knows no bounds takes a room without noting when; it had it since it was asked for, at the longest.
TAKE = """
UPDATE rooms SET
    state = 'starting', owner = :owner, attempt = attempt + 1, since = :now,
    began_at = COALESCE(began_at, CASE WHEN attempt > 0 THEN queued_at ELSE :now END),
    began_boot = CASE WHEN attempt > 0 OR began_at IS NOT NULL THEN began_boot ELSE :boot END,
    began_up = CASE WHEN attempt > 0 OR began_at IS NOT NULL THEN began_up ELSE :up END
WHERE id = :id
"""
COLUMNS = "id, key, url, state, owner, webhook, attempt, restarts, pid, stop, reason, queued_at, since"
LIST = f"SELECT {COLUMNS} FROM rooms"  # noqa: S608
TAKEN = """
SELECT rooms.id, key, url, rooms.state, rooms.owner, webhook, attempt, restarts, pid, stop, rooms.reason,
rooms.queued_at, since, COALESCE(webhooks.seq, (SELECT MAX(seq) FROM webhooks), 0),
webhooks.body
FROM rooms LEFT JOIN webhooks ON webhooks.id = webhook
WHERE rooms.id = ?
"""
MOVE = """
UPDATE rooms SET
    state = :state,
    reason = :reason,
    owner = CASE WHEN :owned THEN owner END,
    pid = CASE WHEN :owned THEN COALESCE(:pid, pid) END,
    since = :now,
    not_before = :not_before,
    restarts = COALESCE(:restarts, restarts),
    stop = :stop,
    successor = :successor
WHERE id = :id
"""
END_OLD = f"""
UPDATE rooms INDEXED BY rooms_open SET state = 'ended', reason = :reason, since = :now
WHERE {OPEN} AND state = 'waiting' AND since < :oldest AND not_before < :oldest AND successor IS NULL
"""  # noqa: S608
OLD_WITH_SUCCESSOR = f"""
SELECT id, state, owner, stop, session_id, asked_at, successor FROM rooms INDEXED BY rooms_open
WHERE {OPEN} AND state = 'waiting' AND since < :oldest AND not_before < :oldest AND successor IS NOT NULL
"""  # noqa: S608
STOPPING = f"""
SELECT {COLUMNS} FROM rooms INDEXED BY rooms_open
WHERE {OPEN} AND owner = :owner AND (
    stop IS NOT NULL OR (state IN ('starting', 'live') AND {REACHED})
)
"""  # noqa: S608
WAITING_AT_BOUND = f"""
SELECT {COLUMNS} FROM rooms INDEXED BY rooms_open
WHERE {OPEN} AND state = 'waiting' AND {REACHED} LIMIT :limit
"""  # noqa: S608
TO_BOUND = f"""
SELECT id, state, owner, stop, session_id, asked_at, successor, {EMPTY}, {LASTED} FROM rooms
WHERE id IN (SELECT value FROM json_each(:ids))
AND (state = 'waiting' OR (owner = :owner AND state IN ('starting', 'live') AND stop IS NULL))
"""  # noqa: S608
OWNED_BY = f"""
SELECT id, state, owner, stop, session_id, asked_at, successor FROM rooms INDEXED BY rooms_open
WHERE {OPEN} AND owner = ?
"""  # noqa: S608
LAST = "SELECT COALESCE(MAX(seq), 0) FROM webhooks"
WEBHOOKS_AFTER = """
SELECT room, seq, body FROM webhooks
WHERE seq > ? AND seq <= ? AND room IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?
"""
KEYS = """
WITH RECURSIVE hosts (host) AS (
    SELECT (SELECT substr(room, 1, instr(room || '/', '/') - 1) FROM webhooks WHERE room IS NOT NULL
        ORDER BY room LIMIT 1)
    UNION ALL SELECT (SELECT substr(room, 1, instr(room || '/', '/') - 1) FROM webhooks
        WHERE room IS NOT NULL AND room > hosts.host || '0' ORDER BY room LIMIT 1)
    FROM hosts WHERE host IS NOT NULL
)
SELECT host || :path AS key FROM hosts WHERE EXISTS (SELECT 1 FROM webhooks WHERE room = hosts.host || :path)
UNION SELECT key FROM rooms WHERE substr(key, instr(key, '/')) = :path
ORDER BY key
"""
"""The hosts of all webhooks are found one by one in the index of rooms, since few have one: "0" follows "/" there."""

FORGOTTEN = "SELECT id FROM rooms WHERE state IN ('ended', 'failed') AND since < ? ORDER BY since LIMIT ?"
FORGET_RUNS = f"DELETE FROM runs WHERE entry IN ({FORGOTTEN})"  # noqa: S608
FORGET_ROOMS = f"DELETE FROM rooms WHERE id IN ({FORGOTTEN})"  # noqa: S608
PAGE = 500


def request(connection: sqlite3.Connection, request: RoomRequest, now: float) -> RoomClaim:
    open = _find_open(connection, request.key)
    changes = _session_changes(connection, request.key) if room_rules.needs_changes(open, request) else []
    answer = room_rules.requested(open, request, changes, now)
    if answer.change is not None:
        _write(connection, answer.change, now)
    elif answer.opens is not None:
        _wait(connection, answer.opens, now)
    return answer.claim


def _session_changes(connection: sqlite3.Connection, key: str) -> list[SessionChange]:
    return stay.session_changes(key, connection.execute(SESSION_CHANGES, (key,)).fetchall())


def _changes_around(connection: sqlite3.Connection, entry: OpenRoom) -> list[SessionChange]:
    """Return what the webhooks of an entry's room say of its sessions, if that is needed to judge it."""
    rows = connection.execute(CHANGES_AROUND, (entry.id,)).fetchall() if room_rules.is_unnamed(entry) else []
    return [said for key, body, at in rows for said in stay.session_changes(key, [(body, at)])]


def _wait(connection: sqlite3.Connection, opens: Successor, now: float) -> None:
    connection.execute(
        WAIT, structs.asdict(opens.request) | {"kept_at": opens.kept_at, "began_at": opens.began_at, "now": now}
    )


class Moment(NamedTuple):
    """Hold the time of day, in seconds since the epoch, and the machine's boot with the seconds since."""

    now: float
    boot: str
    up: float


def take(
    connection: sqlite3.Connection, owner: str, slots: int, moment: Moment, max_age: float, bounds: Bounds
) -> list[Room]:
    times = moment._asdict()
    values = {"slots": slots, "oldest": moment.now - max_age} | times | structs.asdict(bounds)
    taken = [id for (id,) in connection.execute(NEXT, values).fetchall()]
    for id in taken:
        connection.execute(TAKE, {"owner": owner, "id": id} | times)
        history.begin_run(connection, id)
    rooms = [_room(connection.execute(TAKEN, (id,)).fetchone()) for id in taken]
    presences = presence.find(connection, frozenset(room.key for room in rooms))
    return [structs.replace(room, presence=presences[room.key]) for room in rooms]


def move(connection: sqlite3.Connection, move: RoomMove, owner: str, now: float) -> bool:
    row = connection.execute(FIND_OWNED, (move.id, owner)).fetchone()
    if row is None:
        return False
    open = _open(row)
    change = room_rules.moved(open, move.state, move.reason, _changes_around(connection, open))
    if change is None:
        return False
    _move(connection, change, move, now)
    if (outcome := room_rules.run_ended(change, move.run.outcome)) is not None:
        history.end_run(connection, move.id, change.reason or "", structs.replace(move.run, outcome=outcome), now)
    elif change.entry.state is RoomState.LIVE:
        history.go_live(connection, move.id, move.pid, now)
    return True


def _move(connection: sqlite3.Connection, change: Change, move: RoomMove, now: float) -> None:
    values = {
        "id": change.entry.id,
        "state": change.entry.state,
        "reason": change.reason,
        "stop": change.entry.stop,
        "successor": change.entry.successor,
        "pid": move.pid,
        "not_before": now + move.delay,
        "restarts": move.restarts,
        "now": now,
        "owned": change.entry.state in OWNED,
    }
    connection.execute(MOVE, values)
    if change.opens is not None:
        _wait(connection, change.opens, now)


def stop(connection: sqlite3.Connection, key: str, reason: str, now: float) -> RoomState | None:
    open = _find_open(connection, key)
    if open is None:
        return None
    _write(connection, room_rules.change(open, RoomEvent.STOPPED, reason), now)
    return open.state


def change_session(connection: sqlite3.Connection, said: SessionChange, now: float) -> str:
    """Ask the assistants of a session that is over to end; return in words what this did."""
    open = _find_open(connection, said.key)
    if open is None:
        return ""
    change = room_rules.session_changed(open, said, _changes_around(connection, open))
    if change.entry != open:
        _write(connection, change, now)
    return room_rules.effect_of(open, change)


def release(
    connection: sqlite3.Connection,
    owner: str,
    now: float,
    reason: str,
    outcome: RunOutcome,
    *,
    too_old: float | None = None,
) -> int:
    """Let the rooms of a replica that is gone wait for another one, except those whose end was asked for.

    `reason` and `outcome` are how its runs ended.
    `too_old` is the time before which the replica was gone, if that is too long ago: all of its rooms end then, and a
    successor that was asked for before that time does not start.
    """
    owned = connection.execute(OWNED_BY, (owner,)).fetchall()
    for row in owned:
        change = room_rules.released(_open(row), reason, too_old)
        _move(connection, change, RoomMove(change.entry.id, change.entry.state, reason), now)
        history.end_run(connection, change.entry.id, reason, RunReport(outcome), now)
    return len(owned)


def end_old(connection: sqlite3.Connection, now: float, max_age: float) -> None:
    """End rooms that have waited for longer than `max_age` seconds, without starting them."""
    oldest = now - max_age
    for row in connection.execute(OLD_WITH_SUCCESSOR, {"oldest": oldest}).fetchall():
        _write(connection, room_rules.change(_open(row), RoomEvent.TOO_OLD, TOO_OLD, oldest=oldest), now)
    connection.execute(END_OLD, {"reason": TOO_OLD, "now": now, "oldest": oldest})


def stopping(connection: sqlite3.Connection, owner: str, moment: Moment, bounds: Bounds) -> list[Room]:
    """Return the rooms of a replica that were asked to end, and with no `stop` those that `apply_bounds` asks."""
    values = {"owner": owner} | moment._asdict() | structs.asdict(bounds)
    return [_room(row) for row in connection.execute(STOPPING, values).fetchall()]


def waiting_at_bound(connection: sqlite3.Connection, moment: Moment, bounds: Bounds, limit: int) -> list[Room]:
    values = {"limit": limit} | moment._asdict() | structs.asdict(bounds)
    return [_room(row) for row in connection.execute(WAITING_AT_BOUND, values).fetchall()]


def apply_bounds(
    connection: sqlite3.Connection, rooms: Iterable[Room], owner: str, moment: Moment, bounds: Bounds
) -> None:
    """Ask the assistants of rooms to end, or end a room that waits, if a bound is still reached."""
    values = {"owner": owner, "ids": json.dumps([room.id for room in rooms])} | moment._asdict()
    for *row, empty, lasted in connection.execute(TO_BOUND, values).fetchall():
        reason = bounds.reached(empty, lasted)
        if reason is not None:
            change = room_rules.change(_open(row), RoomEvent.BOUND_REACHED, reason)
            _write(connection, change, moment.now)


def read(connection: sqlite3.Connection, limit: int | None, below: int) -> list[Room]:
    bound = -1 if limit is None else limit
    rows = connection.execute(f"{LIST} WHERE id < ? ORDER BY id DESC LIMIT ?", (below, bound)).fetchall()
    return [_room(row) for row in rows]


def find(connection: sqlite3.Connection, query: RoomQuery) -> list[Room]:
    statement, values = select(query)
    return [_room(row) for row in connection.execute(statement, values).fetchall()]


def select(query: RoomQuery) -> tuple[str, list[Any]]:
    """Return the statement of a query, and its values."""
    clauses: dict[str, tuple[Any, ...]] = {"1": ()}
    listed = LIST
    if query.owner is not None:
        # An entry that is over has no owner.
        listed = f"{LIST} INDEXED BY rooms_open"
        clauses |= {OPEN: (), "owner = ?": (query.owner,)}
    if query.id is not None:
        clauses["id = ?"] = (query.id,)
    if query.room is not None:
        clauses |= history.in_room(query.room)
    if query.webhooks is not None:
        clauses["webhook IN (SELECT value FROM json_each(?))"] = (json.dumps(query.webhooks, ensure_ascii=False),)
    if query.open:
        clauses["state NOT IN ('ended', 'failed')"] = ()
    if query.state is not None:
        clauses["state = ?"] = (query.state.value,)
    if query.since is not None:
        clauses["(state NOT IN ('ended', 'failed') OR state IN ('ended', 'failed') AND since >= ?)"] = (query.since,)
    if query.until is not None:
        clauses["queued_at < ?"] = (query.until,)
    limit = -1 if query.limit is None else query.limit
    values = [value for given in clauses.values() for value in given]
    # The index of times also holds what else is asked of an entry, which reading them all would find too slowly.
    narrowed = query.open or any(asked is not None for asked in (query.state, query.since, query.until))
    order = "queued_at DESC, id DESC" if narrowed and query.room is None else "id DESC"
    return f"{listed} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ?", [*values, limit]


def keys_of(connection: sqlite3.Connection, name: str) -> list[str]:
    return [key for (key,) in connection.execute(KEYS, {"path": room_path(name)}).fetchall()]


def webhooks_after(connection: sqlite3.Connection, after: int, keys: frozenset[str]) -> WebhooksAfter:
    (last,) = connection.execute(LAST).fetchone()
    rows = connection.execute(WEBHOOKS_AFTER, (after, last, json.dumps(sorted(keys)), PAGE)).fetchall()
    more = len(rows) == PAGE
    return WebhooksAfter(tuple(rows), rows[-1][1] if more else last, more)


def forget(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` rooms that were over before a time, and their runs; return how many rooms."""
    connection.execute(FORGET_RUNS, (before, limit))
    return connection.execute(FORGET_ROOMS, (before, limit)).rowcount


def _find_open(connection: sqlite3.Connection, key: str) -> OpenRoom | None:
    row = connection.execute(FIND_OPEN, (key,)).fetchone()
    return None if row is None else _open(row)


def _open(row: Sequence[Any]) -> OpenRoom:
    return OpenRoom(row[0], RoomState(row[1]), *row[2:])


def _write(connection: sqlite3.Connection, change: Change, now: float) -> None:
    entry = change.entry
    values = {
        "id": entry.id,
        "state": entry.state,
        "reason": change.reason,
        "stop": entry.stop,
        "successor": entry.successor,
        "now": now,
    }
    connection.execute(WRITE, values)
    if change.opens is not None:
        _wait(connection, change.opens, now)


def _room(row: Sequence[Any]) -> Room:
    id, key, url, state, owner, webhook, attempt, restarts, pid, stop, reason, queued_at, since, *rest = row
    return Room(
        id=id,
        key=key,
        url=url,
        state=RoomState(state),
        owner=owner,
        webhook=webhook,
        attempt=attempt,
        restarts=restarts,
        pid=pid,
        stop=stop,
        reason=reason,
        queued_at=queued_at,
        since=since,
        seq=rest[0] if rest else 0,
        body=rest[1] if rest else None,
    )
