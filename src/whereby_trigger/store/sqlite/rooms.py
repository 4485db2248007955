"""What each verb on rooms says to SQLite, as plain functions of a connection inside a transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from whereby_trigger.store.rooms import Heard, Room, RoomClaim, RoomMove, RoomRequest, SessionChange
from whereby_trigger.store.states import OVER, OWNED, RoomState, before

WAIT = """
INSERT INTO rooms (key, url, state, webhook, session_id, asked_at, queued_at, since)
VALUES (:key, :url, 'waiting', :webhook, :session_id, :asked_at, :now, :now)
"""
FIND_OPEN = "SELECT id, state, owner FROM rooms WHERE key = ? AND state NOT IN ('ended', 'failed')"
FOLLOW = "UPDATE rooms SET successor = ? WHERE id = ?"
NEXT = "SELECT id FROM rooms WHERE state = 'waiting' AND not_before <= ? ORDER BY id LIMIT ?"
TAKE = "UPDATE rooms SET state = 'starting', owner = ?, attempt = attempt + 1, since = ? WHERE id = ?"
LIST = """
SELECT id, key, url, state, owner, webhook, attempt, restarts, pid, stop, reason, queued_at, since, errors FROM rooms
"""
TAKEN = """
SELECT rooms.id, key, url, rooms.state, rooms.owner, webhook, attempt, restarts, pid, stop, rooms.reason,
rooms.queued_at, since, rooms.errors, COALESCE(webhooks.seq, (SELECT MAX(seq) FROM webhooks), 0),
webhooks.body
FROM rooms LEFT JOIN webhooks ON webhooks.id = webhook
WHERE rooms.id = ?
"""
MOVE = """
UPDATE rooms SET state = :state, owner = CASE WHEN :owned THEN owner END, pid = CASE WHEN :owned THEN :pid END,
reason = :reason, since = :now, not_before = :not_before, restarts = COALESCE(:restarts, restarts), errors = :errors
WHERE id = :id AND owner = :owner AND state IN (SELECT value FROM json_each(:before))
RETURNING successor
"""
END_WAITING = "UPDATE rooms SET state = 'ended', reason = ?, since = ? WHERE id = ? AND state = 'waiting'"
ASK_TO_STOP = "UPDATE rooms SET stop = COALESCE(stop, ?) WHERE id = ? AND state IN ('starting', 'live', 'ending')"
CONCERNED = """
SELECT id, state FROM rooms WHERE key = :key AND state NOT IN ('ended', 'failed') AND CASE WHEN :started
    THEN session_id <> :session_id AND :created_at > asked_at
    ELSE COALESCE(session_id = :session_id, :created_at > asked_at)
END
"""
OWNED_BY = "SELECT id, state, stop FROM rooms WHERE owner = ?"
LAST = "SELECT COALESCE(MAX(seq), 0) FROM webhooks"
HEARD = """
SELECT seq, room, body FROM webhooks
WHERE seq > ? AND seq <= ? AND room IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?
"""
FORGET_ROOMS = """
DELETE FROM rooms WHERE id IN (SELECT id FROM rooms WHERE state IN ('ended', 'failed') AND since < ? LIMIT ?)
"""
PAGE = 500


def request(connection: sqlite3.Connection, request: RoomRequest, now: float) -> RoomClaim:
    row = connection.execute(FIND_OPEN, (request.key,)).fetchone()
    if row is None:
        connection.execute(WAIT, structs.asdict(request) | {"now": now})
        return RoomClaim(True, RoomState.WAITING, None)
    id, state, owner = row
    if state == RoomState.ENDING:
        connection.execute(FOLLOW, (json.dumps(structs.asdict(request)), id))
    return RoomClaim(False, RoomState(state), owner)


def take(connection: sqlite3.Connection, owner: str, slots: int, now: float) -> list[Room]:
    taken = [id for (id,) in connection.execute(NEXT, (now, slots)).fetchall()]
    for id in taken:
        connection.execute(TAKE, (owner, now, id))
    return [_room(connection.execute(TAKEN, (id,)).fetchone()) for id in taken]


def move(connection: sqlite3.Connection, move: RoomMove, owner: str, now: float) -> bool:
    values = {
        "id": move.id,
        "state": move.state,
        "reason": move.reason,
        "pid": move.pid,
        "not_before": move.not_before,
        "restarts": move.restarts,
        "errors": json.dumps(move.errors),
        "owner": owner,
        "now": now,
        "owned": move.state in OWNED,
        "before": json.dumps(before(move.state)),
    }
    row = connection.execute(MOVE, values).fetchone()
    if row is not None and move.state in OVER and row[0] is not None:
        connection.execute(WAIT, json.loads(row[0]) | {"now": now})
    return row is not None


def stop(connection: sqlite3.Connection, key: str, reason: str, now: float) -> RoomState | None:
    row = connection.execute(FIND_OPEN, (key,)).fetchone()
    if row is None:
        return None
    _ask_to_stop(connection, row[0], reason, now)
    return RoomState(row[1])


def change_session(connection: sqlite3.Connection, change: SessionChange, now: float) -> None:
    """Ask the assistants of a session that is over to end."""
    reason = "another session has started" if change.started else "the session has ended"
    for id, _ in connection.execute(CONCERNED, structs.asdict(change)).fetchall():
        _ask_to_stop(connection, id, reason, now)


def release(connection: sqlite3.Connection, owner: str, now: float, too_old: bool) -> int:
    """Let the rooms of a dead replica wait for another, but those whose end was asked for or that are too old."""
    owned = connection.execute(OWNED_BY, (owner,)).fetchall()
    for id, state, asked in owned:
        if state == RoomState.ENDING or asked is not None:
            outcome = RoomMove(id, RoomState.ENDED, asked or "its replica died while it was ending")
        elif too_old:
            outcome = RoomMove(id, RoomState.ENDED, "its replica died longer than max_age ago")
        else:
            outcome = RoomMove(id, RoomState.WAITING, f"its replica {owner} died")
        move(connection, outcome, owner, now)
    return len(owned)


def own(connection: sqlite3.Connection, owner: str) -> list[Room]:
    return [_room(row) for row in connection.execute(f"{LIST} WHERE owner = ?", (owner,)).fetchall()]


def read(connection: sqlite3.Connection, limit: int | None) -> list[Room]:
    bound = -1 if limit is None else limit
    rows = connection.execute(f"{LIST} ORDER BY id DESC LIMIT ?", (bound,)).fetchall()
    return [_room(row) for row in rows]


def heard(connection: sqlite3.Connection, after: int, keys: frozenset[str]) -> Heard:
    (last,) = connection.execute(LAST).fetchone()
    rows = connection.execute(HEARD, (after, last, json.dumps(sorted(keys)), PAGE)).fetchall()
    more = len(rows) == PAGE
    return Heard(tuple((key, body) for _, key, body in rows), rows[-1][0] if more else last, more)


def forget(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(FORGET_ROOMS, (before, PAGE)).rowcount


def _ask_to_stop(connection: sqlite3.Connection, id: int, reason: str, now: float) -> None:
    connection.execute(END_WAITING, (reason, now, id))
    connection.execute(ASK_TO_STOP, (reason, id))


def _room(row: Sequence[Any]) -> Room:
    id, key, url, state, owner, webhook, attempt, restarts, pid, stop, reason, queued_at, since, errors, *rest = row
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
        errors=tuple(json.loads(errors)),
        seq=rest[0] if rest else 0,
        body=rest[1] if rest else None,
    )
