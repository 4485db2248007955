"""SQL for webhooks on SQLite: one function for each method of the store, called inside a transaction."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from whereby_trigger.store.records import Added, Arrival, Decision, Pending, Query, Record
from whereby_trigger.store.sqlite import rooms
from whereby_trigger.store.sqlite.presence import GatheredCounts
from whereby_trigger.store.states import DECIDABLE, FIRST_STATES, REPLAYABLE, State, sql_in
from whereby_trigger.webhook import room_path

INSERT = """
INSERT INTO webhooks (id, type, room, body, received_at, queued_at, owner, state, reason, kept_until, decided_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7, ?8, ?9, CASE WHEN ?7 <> 'pending' THEN ?5 END) ON CONFLICT (id) DO NOTHING
"""
COUNT_DELIVERY = """
UPDATE webhooks SET deliveries = deliveries + 1, kept_until = max(kept_until, ?) WHERE id = ? RETURNING seq, state
"""
DECIDE = f"""
UPDATE webhooks SET state = ?, reason = ?, attempts = ?, decided_at = ?, errors = ?
WHERE seq = ? AND id = ? AND state {sql_in(DECIDABLE)} AND owner = ?
"""  # noqa: S608
BEGIN_ATTEMPT = """
UPDATE webhooks SET attempts = attempts + 1
WHERE seq = ? AND state = 'pending' AND owner = ? RETURNING attempts
"""
APPEND_ERROR = "UPDATE webhooks SET errors = json_insert(errors, '$[#]', ?) WHERE id = ?"
TAKE_UNOWNED = "UPDATE webhooks SET owner = ? WHERE state = 'pending' AND owner IS NULL"
DISOWN = """
UPDATE webhooks SET owner = NULL, takeovers = takeovers + 1, attempts = 0 WHERE state = 'pending' AND owner = ?
"""
TAKE_ORPHANED = """
UPDATE webhooks SET owner = ?, takeovers = takeovers + 1 WHERE state = 'pending' AND owner = ?
"""
PENDING = """
SELECT seq, id, type, body, received_at, queued_at, attempts, takeovers FROM webhooks
WHERE state = 'pending' AND owner = ? AND seq > ? ORDER BY seq LIMIT ?
"""
FIND = """
SELECT id, type, room, state, reason, attempts, deliveries, received_at, decided_at, owner, errors, body
FROM webhooks
"""
REPLAY = """
UPDATE webhooks SET state = 'pending', owner = NULL, attempts = 0, takeovers = 0, queued_at = ?, reason = '',
decided_at = NULL, errors = '[]'
"""
FORGET = """
DELETE FROM webhooks WHERE seq IN
(SELECT seq FROM webhooks WHERE state <> 'pending' AND received_at < ? AND kept_until < ? ORDER BY received_at LIMIT ?)
"""
SEEN = "UPDATE replicas SET seen_at = ? WHERE id = ?"

LAST_CHARACTER = "\U0010ffff"


def add(connection: sqlite3.Connection, arrival: Arrival, owner: str, now: float, counts: GatheredCounts) -> Added:
    if arrival.state not in FIRST_STATES:
        raise ValueError(f"no webhook is stored as {arrival.state}")
    # The driver is slower with a subclass of str, such as a state.
    state = arrival.state.value
    row = (arrival.id, arrival.type, arrival.room, arrival.body, arrival.received_at, owner, state, arrival.reason)
    cursor = connection.execute(INSERT, (*row, arrival.kept_until))
    if cursor.rowcount:
        if arrival.change is not None:
            rooms.change_session(connection, arrival.change, now)
        if arrival.count is not None:
            counts.add(arrival.count, arrival.received_at, now)
        return Added(cursor.lastrowid or 0, False, arrival.state)
    seq, stored = connection.execute(COUNT_DELIVERY, (arrival.kept_until, arrival.id)).fetchone()
    return Added(seq, True, State(stored))


def decide(connection: sqlite3.Connection, decision: Decision, owner: str) -> bool:
    outcome = (decision.state.value, decision.reason, decision.attempts, decision.decided_at, _pack(decision.errors))
    return connection.execute(DECIDE, (*outcome, decision.seq, decision.id, owner)).rowcount == 1


def begin_attempt(connection: sqlite3.Connection, seq: int, owner: str) -> int:
    row = connection.execute(BEGIN_ATTEMPT, (seq, owner)).fetchone()
    return row[0] if row else 0


def append_error(connection: sqlite3.Connection, id: str, error: str) -> None:
    connection.execute(APPEND_ERROR, (error, id))


def take_unowned(connection: sqlite3.Connection, owner: str) -> int:
    return connection.execute(TAKE_UNOWNED, (owner,)).rowcount


def pending(connection: sqlite3.Connection, owner: str, after: int, limit: int) -> list[Pending]:
    return [Pending(*row) for row in connection.execute(PENDING, (owner, after, limit)).fetchall()]


def find(connection: sqlite3.Connection, query: Query) -> list[Record]:
    selected, values = _select(query)
    return [_record(row) for row in connection.execute(f"{FIND} {selected}", values).fetchall()]


def replay(connection: sqlite3.Connection, query: Query, now: float) -> list[str]:
    selected, values = _select(query, f"state {sql_in(REPLAYABLE)}")
    statement = f"{REPLAY} WHERE seq IN (SELECT seq FROM webhooks {selected}) RETURNING id"  # noqa: S608
    return [id for (id,) in connection.execute(statement, (now, *values)).fetchall()]


def prune(connection: sqlite3.Connection, before: float, now: float, limit: int) -> int:
    """Delete at most `limit` decided webhooks received before `before` and kept until before `now`; return how many."""
    return connection.execute(FORGET, (before, now, limit)).rowcount


def _select(query: Query, also: str = "1") -> tuple[str, list[Any]]:
    clauses = [also]
    values: list[Any] = []
    if query.ids is not None:
        clauses.append(f"id IN ({', '.join('?' * len(query.ids))})")
        values.extend(query.ids)
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
    limit = "" if query.limit is None else f"LIMIT {int(query.limit)}"
    return f"WHERE {' AND '.join(clauses)} ORDER BY seq DESC {limit}", values


def _record(row: Sequence[Any]) -> Record:
    id, type, room, state, reason, attempts, deliveries, received_at, decided_at, owner, errors, body = row
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
    )


def _pack(errors: tuple[str, ...]) -> str:
    return json.dumps(errors) if errors else "[]"
