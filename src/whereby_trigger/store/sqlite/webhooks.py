"""SQL for webhooks on SQLite: one function for each method of the store, called inside a transaction."""

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

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
from whereby_trigger.store.sqlite import rooms
from whereby_trigger.store.sqlite.presence import GatheredCounts
from whereby_trigger.store.states import DECIDABLE, FIRST_STATES, OUTLIVED, OVER, REPLAYABLE, RoomState, State, sql_in
from whereby_trigger.webhook import room_path

_INSERT = """
INSERT INTO webhooks (id, type, room, body, received_at, queued_at, owner, state, reason, kept_until%s)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?%s) ON CONFLICT (id) DO NOTHING
"""
INSERT, INSERT_DECIDED = _INSERT % ("", ""), _INSERT % (", decided_at", ", ?")
COUNT_DELIVERY = """
UPDATE webhooks SET deliveries = deliveries + 1, kept_until = max(kept_until, ?) WHERE id = ? RETURNING seq, state
"""
# Until it is decided, or held, the reason of a pending webhook is what it did when it was stored.
NOTE_EFFECT = "UPDATE webhooks SET reason = ? WHERE seq = ? AND state = 'pending'"
# Takes the errors twice, as JSON. Only a webhook that was held has some already.
_ERRORS = """CASE errors WHEN '[]' THEN ? ELSE (
    SELECT json_group_array(value) FROM (SELECT value FROM json_each(errors) UNION ALL SELECT value FROM json_each(?))
) END"""
_DECIDE = f"""
UPDATE webhooks SET %sstate = ?, reason = ?, attempts = ?, decided_at = ?
WHERE seq = ? AND id = ? AND state {sql_in(DECIDABLE)} AND owner = ?
"""  # noqa: S608
# Most decisions change neither errors nor the body.
DECIDE, DECIDE_AND_CHANGE = _DECIDE % "", _DECIDE % f"errors = {_ERRORS}, body = coalesce(?, body), "
HOLD = f"""
UPDATE webhooks SET errors = {_ERRORS}, state = 'held', reason = ?, attempts = 0, takeovers = 0, crashes = 0,
held_since = coalesce(held_since, ?), due_at = coalesce(due_at, ?)
WHERE seq = ? AND id = ? AND state = 'pending' AND owner = ?
"""  # noqa: S608
ASK_AGAIN = """
UPDATE webhooks SET state = 'pending', reason = ''
WHERE seq IN (SELECT value FROM json_each(?)) AND state = 'held' AND owner = ? RETURNING seq
"""
BEGIN_ATTEMPT = """
UPDATE webhooks SET attempts = attempts + 1
WHERE seq = ? AND state = 'pending' AND owner = ? RETURNING attempts
"""
APPEND_ERROR = "UPDATE webhooks SET errors = json_insert(errors, '$[#]', ?) WHERE id = ? AND body_removed_at IS NULL"
TAKE_UNOWNED = """
UPDATE webhooks INDEXED BY webhooks_owner SET owner = ? WHERE state = 'pending' AND owner IS NULL
"""
DISOWN = """
UPDATE webhooks SET owner = NULL, takeovers = takeovers + 1, attempts = 0 WHERE state = 'pending' AND owner = ?
"""
TAKE_ORPHANED = f"""
UPDATE webhooks SET owner = :new, takeovers = takeovers + 1,
    crashes = crashes + (
        :crashed AND NOT EXISTS (SELECT 1 FROM replica_log WHERE id = :owner AND ending {sql_in(OUTLIVED)})
    )
WHERE state = 'pending' AND owner = :owner
"""  # noqa: S608
TAKE_HELD = "UPDATE webhooks SET state = 'pending', owner = ?, reason = '' WHERE state = 'held' AND owner = ?"
_PENDING = """
SELECT seq, owner, id, type, body, received_at, queued_at, attempts, takeovers,
    :now - held_since, due_at - :now, reason, crashes
FROM webhooks
"""
PENDING = f"{_PENDING} WHERE state = 'pending' AND owner = :owner AND seq > :after ORDER BY seq LIMIT :limit"
PENDING_BY_SEQ = f"{_PENDING} WHERE seq IN (SELECT value FROM json_each(:seqs)) ORDER BY seq"  # noqa: S608
NEWEST = "SELECT coalesce(max(seq), 0) FROM webhooks"
FIND = """
SELECT id, type, room, state, reason, attempts, deliveries, received_at, decided_at, owner, errors, body, due_at,
    body_removed_at, seq
FROM webhooks
"""
HISTORY = """
SELECT seq, id, type, room, body, state, reason, received_at, queued_at, decided_at, held_since, due_at
FROM webhooks WHERE seq > ? ORDER BY seq LIMIT ?
"""
FIRST_SINCE = "SELECT seq FROM webhooks WHERE received_at >= ? ORDER BY seq LIMIT 1"
CAN_REPLAY = f"state {sql_in(REPLAYABLE)} AND body_removed_at IS NULL"
REPLAY = """
UPDATE webhooks SET state = 'pending', owner = NULL, attempts = 0, takeovers = 0, crashes = 0, queued_at = ?,
reason = '', decided_at = NULL, errors = '[]', held_since = NULL, due_at = NULL
"""
COUNT_FORGOTTEN = """
SELECT count(*) FROM webhooks WHERE state <> 'pending' AND state <> 'held' AND received_at < ? AND kept_until < ?
"""
FORGET = """
DELETE FROM webhooks WHERE seq IN (
    SELECT seq FROM webhooks WHERE state <> 'pending' AND state <> 'held' AND received_at < ? AND kept_until < ?
    ORDER BY received_at LIMIT ?
)
"""
SEEN = "UPDATE replicas SET seen_at = ? WHERE id = ?"

LAST_CHARACTER = "\U0010ffff"
LATEST_FIRST = "ORDER BY received_at DESC, seq DESC"


def add(connection: sqlite3.Connection, arrival: Arrival, owner: str, now: float, counts: GatheredCounts) -> Added:
    if arrival.state not in FIRST_STATES:
        raise ValueError(f"no webhook is stored as {arrival.state}")
    received_at, state = arrival.received_at, arrival.state.value
    # The driver asks for adapters of whatever is no plain str, float, int or bytearray: of None and of bytes, too.
    values = (arrival.id, arrival.type, arrival.room, bytearray(arrival.body), received_at, received_at, owner, state)
    if arrival.state is State.PENDING:
        cursor = connection.execute(INSERT, (*values, arrival.reason, arrival.kept_until))
    else:
        cursor = connection.execute(INSERT_DECIDED, (*values, arrival.reason, arrival.kept_until, received_at))
    if cursor.rowcount:
        seq, effect = cursor.lastrowid or 0, ""
        if arrival.change is not None and (effect := rooms.change_session(connection, arrival.change, now)):
            connection.execute(NOTE_EFFECT, (effect, seq))
        added = Added(seq, False, arrival.state, owner, effect=effect)
        if arrival.count is not None:
            counts.add(arrival.count, arrival.received_at, now, added)
        return added
    seq, stored = connection.execute(COUNT_DELIVERY, (arrival.kept_until, arrival.id)).fetchone()
    return Added(seq, True, State(stored))


def decide(connection: sqlite3.Connection, decision: Decision, owner: str) -> bool:
    decided = (decision.state.value, decision.reason, decision.attempts, decision.decided_at)
    row = (decision.seq, decision.id, owner)
    if not decision.errors and decision.body is None:
        return connection.execute(DECIDE, (*decided, *row)).rowcount == 1
    errors = _pack(decision.errors)
    return connection.execute(DECIDE_AND_CHANGE, (errors, errors, decision.body, *decided, *row)).rowcount == 1


def hold(connection: sqlite3.Connection, holding: Holding, owner: str, now: float) -> bool:
    errors = _pack(holding.errors)
    held = (errors, errors, holding.reason, now, now + holding.seconds)
    return connection.execute(HOLD, (*held, holding.seq, holding.id, owner)).rowcount == 1


def ask_again(connection: sqlite3.Connection, seqs: Sequence[int], owner: str, now: float) -> list[Pending]:
    asked = [seq for (seq,) in connection.execute(ASK_AGAIN, (json.dumps(seqs), owner)).fetchall()]
    values = {"now": now, "seqs": json.dumps(asked)}
    return [Pending(*row) for row in connection.execute(PENDING_BY_SEQ, values).fetchall()]


def begin_attempt(connection: sqlite3.Connection, seq: int, owner: str) -> int:
    row = connection.execute(BEGIN_ATTEMPT, (seq, owner)).fetchone()
    return row[0] if row else 0


def append_error(connection: sqlite3.Connection, id: str, error: str) -> None:
    connection.execute(APPEND_ERROR, (error, id))


def take_unowned(connection: sqlite3.Connection, owner: str) -> int:
    return connection.execute(TAKE_UNOWNED, (owner,)).rowcount


def pending(connection: sqlite3.Connection, owner: str, after: int, limit: int, now: float) -> list[Pending]:
    values = {"now": now, "owner": owner, "after": after, "limit": limit}
    return [Pending(*row) for row in connection.execute(PENDING, values).fetchall()]


def newest(connection: sqlite3.Connection) -> int:
    return int(connection.execute(NEWEST).fetchone()[0])


def find(connection: sqlite3.Connection, query: Query) -> list[Record]:
    selected, values = _select(query)
    return [record(row) for row in connection.execute(f"{FIND} {selected}", values).fetchall()]


def history(connection: sqlite3.Connection, after: int, limit: int) -> list[PastWebhook]:
    return [_past(row) for row in connection.execute(HISTORY, (after, limit)).fetchall()]


def first_since(connection: sqlite3.Connection, moment: float) -> int | None:
    row = connection.execute(FIRST_SINCE, (moment,)).fetchone()
    return None if row is None else int(row[0])


def replay(connection: sqlite3.Connection, query: Query, now: float) -> list[str]:
    selected, values = _select(query, CAN_REPLAY)
    statement = f"{REPLAY} WHERE seq IN (SELECT seq FROM webhooks {selected}) RETURNING id"  # noqa: S608
    return [id for (id,) in connection.execute(statement, (now, *values)).fetchall()]


def replayable(connection: sqlite3.Connection, query: Query) -> list[str]:
    selected, values = _select(query, CAN_REPLAY)
    return [id for (id,) in connection.execute(f"SELECT id FROM webhooks {selected}", values).fetchall()]  # noqa: S608


def prunable(connection: sqlite3.Connection, before: float, now: float) -> int:
    return int(connection.execute(COUNT_FORGOTTEN, (before, now)).fetchone()[0])


def prune(connection: sqlite3.Connection, before: float, now: float, limit: int) -> int:
    """Delete at most `limit` decided webhooks received before `before` and kept until before `now`; return how many."""
    return connection.execute(FORGET, (before, now, limit)).rowcount


def _select(query: Query, also: str = "1") -> tuple[str, list[Any]]:
    """Return the conditions of a query, its order and its limit, and its values."""
    clauses = [also]
    values: list[Any] = []
    if query.ids is not None:
        # In one value: a statement may not have very many. Not escaped, so that what no store can hold is refused.
        clauses.append("id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(query.ids, ensure_ascii=False))
    if query.prefix is not None:
        clauses.append("id >= ? AND id < ?")
        values.extend((query.prefix, query.prefix + LAST_CHARACTER))
    if query.state is not None:
        clauses.append("state = ?")
        values.append(query.state)
    if query.type is not None:
        clauses.append("type = ?")
        values.append(query.type)
    if query.room is not None:
        by_name = query.room.startswith("/")
        clauses.append("substr(room, instr(room, '/')) = ?" if by_name else "room = ?")
        values.append(room_path(query.room) if by_name else query.room)
    if query.since is not None:
        clauses.append("received_at >= ?")
        values.append(query.since)
    if query.until is not None:
        clauses.append("received_at < ?")
        values.append(query.until)
    limit = "" if query.limit is None else f"LIMIT {int(query.limit)}"
    where = " AND ".join(clauses)
    if query.since is None and query.until is None:
        return f"WHERE {where} ORDER BY seq DESC {limit}", values
    # The decided webhooks of a time are found by their index, and so are the pending ones, which are few. Those of a
    # room are found by its own index, whatever their state.
    of_a_room = query.room is not None and not query.room.startswith("/")
    states = ("",) if of_a_room else (" AND state = 'pending'", " AND state <> 'pending'")
    each = [
        f"SELECT * FROM (SELECT seq FROM webhooks WHERE {where}{state} {LATEST_FIRST} {limit})"  # noqa: S608
        for state in states
    ]
    return f"WHERE seq IN ({' UNION ALL '.join(each)}) {LATEST_FIRST} {limit}", values * len(states)


def record(row: Sequence[Any]) -> Record:
    id, type, room, state, reason, attempts, deliveries, received_at, decided_at, owner, errors, body, *rest = row
    due_at, body_removed_at, seq = rest
    return Record(
        id=id,
        type=type,
        room=room,
        state=State(state),
        reason=reason,
        attempts=attempts,
        deliveries=deliveries,
        received_at=received_at,
        decided_at=decided_at,
        owner=owner,
        errors=tuple(json.loads(errors)),
        body=body,
        due_at=due_at,
        body_removed_at=body_removed_at,
        seq=seq,
    )


def _past(row: Sequence[Any]) -> PastWebhook:
    seq, id, type, room, body, state, *others = row
    return PastWebhook(seq, id, type, room, body, State(state), *others)


def _pack(errors: tuple[str, ...]) -> str:
    return json.dumps(errors) if errors else "[]"


STEPS = 10_000
"""Steps of SQLite between two looks at the clock, well under a millisecond."""

OLDEST_AMONG = 1000
"""Pending webhooks, in order of arrival, among which the oldest is looked for.

It is the first, unless webhooks were replayed, which keep their place. This many rows are read in a few milliseconds.
"""

WORKLOAD = f"""
SELECT 'pending', count(*) FROM webhooks WHERE state = 'pending'
UNION ALL
SELECT 'held', count(*) FROM webhooks WHERE state = 'held'
UNION ALL
SELECT 'oldest', min(queued_at) FROM (
    SELECT queued_at FROM webhooks WHERE state = 'pending' ORDER BY seq LIMIT {OLDEST_AMONG}
)
UNION ALL
SELECT * FROM (SELECT state, count(*) FROM rooms WHERE state NOT {sql_in(OVER)} GROUP BY state)
"""  # noqa: S608


def workload(connection: sqlite3.Connection, within: float) -> Workload:
    """Count; raises OperationalError if that takes longer than `within` seconds."""
    give_up = time.monotonic() + within
    connection.set_progress_handler(lambda: time.monotonic() > give_up, STEPS)
    try:
        found = dict(connection.execute(WORKLOAD).fetchall())
    finally:
        connection.set_progress_handler(None, 0)
    pending, held, oldest = found.pop("pending"), found.pop("held"), found.pop("oldest")
    return Workload(pending, held, oldest, {RoomState(state): rooms for state, rooms in found.items()})
