"""SQL for what happened on SQLite, beside webhooks and rooms: runs, what people did by hand, and refusals."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from whereby_trigger.store.records import (
    MINUTE,
    ActionQuery,
    ActionRecord,
    RefusalCount,
    RunQuery,
    RunRecord,
    RunReport,
)
from whereby_trigger.store.states import RunOutcome
from whereby_trigger.webhook import room_path

BEGIN_RUN = """
INSERT INTO runs (entry, key, webhook, replica, attempt, started_at)
SELECT id, key, webhook, owner, attempt, max(since, COALESCE(
    (SELECT ended_at FROM runs WHERE runs.entry = rooms.id AND runs.attempt = rooms.attempt - 1), since
)) FROM rooms WHERE id = ?
"""
"""A replica that waited for another to write took its time before that: a run begins after the last one has ended."""
CURRENT = "entry = :entry AND attempt = (SELECT attempt FROM rooms WHERE id = :entry)"
GO_LIVE = f"UPDATE runs SET live_at = :now, pid = :pid WHERE {CURRENT}"  # noqa: S608
END_RUN = f"""
UPDATE runs SET
    ended_at = :now,
    outcome = :outcome,
    reason = :reason,
    exit_code = :exit_code,
    signal = :signal,
    exception = CASE WHEN silent THEN NULL ELSE :exception END,
    output = CASE WHEN silent THEN '' ELSE :output END
WHERE {CURRENT} AND ended_at IS NULL
"""  # noqa: S608
COLUMNS = RunRecord.__struct_fields__
LIST_RUNS = f"SELECT {', '.join(COLUMNS)} FROM runs"  # noqa: S608
FORGET_RUNS = "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE ended_at < ? ORDER BY ended_at LIMIT ?)"


def begin_run(connection: sqlite3.Connection, entry: int) -> None:
    """Record the run that begins with the taking of a room."""
    connection.execute(BEGIN_RUN, (entry,))


def go_live(connection: sqlite3.Connection, entry: int, pid: int | None, now: float) -> None:
    connection.execute(GO_LIVE, {"entry": entry, "pid": pid, "now": now})


def end_run(connection: sqlite3.Connection, entry: int, reason: str, report: RunReport, now: float) -> None:
    """Record the end of a room's run; a run that a program without runs began is not there, and stays so."""
    values = {
        "entry": entry,
        "reason": reason,
        "now": now,
        "outcome": None if report.outcome is None else report.outcome.value,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "exception": report.exception,
        "output": report.output,
    }
    connection.execute(END_RUN, values)


def find_runs(connection: sqlite3.Connection, query: RunQuery) -> list[RunRecord]:
    statement, values = select_runs(query)
    return [_run(row) for row in connection.execute(statement, values).fetchall()]


def select_runs(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the statement of a query, and its values."""
    clauses: dict[str, tuple[Any, ...]] = {"1": ()}
    if query.entry is not None:
        clauses["entry = ?"] = (query.entry,)
    if query.room is not None:
        clauses |= in_room(query.room)
    if query.since is not None:
        clauses["(ended_at IS NULL OR ended_at >= ?)"] = (query.since,)
    if query.until is not None:
        clauses["started_at < ?"] = (query.until,)
    limit = -1 if query.limit is None else query.limit
    values = [value for given in clauses.values() for value in given]
    order = "id DESC" if query.entry is not None or query.room is not None else "started_at DESC, id DESC"
    return f"{LIST_RUNS} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ?", [*values, limit]


def in_room(room: str) -> dict[str, tuple[Any, ...]]:
    """Return the conditions that a row is of a room, given as a key or a name, by the index of names."""
    name = "substr(key, instr(key, '/')) = ?"
    if room.startswith("/"):
        return {name: (room_path(room),)}
    # Without the +, SQLite puts the key into the condition on the name, and no longer finds the index.
    return {name: ("/" + room.partition("/")[2],), "+key = ?": (room,)}


def forget_runs(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` runs that ended before a time; return how many."""
    return connection.execute(FORGET_RUNS, (before, limit)).rowcount


def _run(row: Sequence[Any]) -> RunRecord:
    values = dict(zip(COLUMNS, row, strict=True))
    outcome = values["outcome"]
    return RunRecord(**values | {"outcome": None if outcome is None else RunOutcome(outcome)})


ADD_ACTION = """
INSERT INTO actions (id, at, actor, action, room, webhook) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
READ_ACTIONS = "SELECT id, at, actor, action, room, webhook FROM actions"
FORGET_ACTIONS = "DELETE FROM actions WHERE rowid IN (SELECT rowid FROM actions WHERE at < ? LIMIT ?)"


def add_action(connection: sqlite3.Connection, action: ActionRecord) -> None:
    row = (action.id, action.at, action.actor, str(action.action), action.room, action.webhook)
    connection.execute(ADD_ACTION, row)


def find_actions(connection: sqlite3.Connection, query: ActionQuery) -> list[ActionRecord]:
    clauses, values = ["at >= ?", "at < ?"], list[Any]((query.since, query.until))
    if query.room is not None:
        clauses.append("room = ?")
        values.append(query.room)
    if query.webhook is not None:
        clauses.append("webhook = ?")
        values.append(query.webhook)
    statement = f"{READ_ACTIONS} WHERE {' AND '.join(clauses)} ORDER BY at DESC, id LIMIT ?"
    return [ActionRecord(*row) for row in connection.execute(statement, (*values, query.limit)).fetchall()]


def forget_actions(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` actions from before a time; return how many."""
    return connection.execute(FORGET_ACTIONS, (before, limit)).rowcount


ADD_REFUSALS = """
INSERT INTO refusals (minute, reason, replica, status, count) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (minute, reason, replica) DO UPDATE SET count = max(count, excluded.count)
"""
READ_REFUSALS = """
SELECT minute, reason, replica, status, count FROM refusals WHERE minute > ? AND minute < ?
ORDER BY minute, reason, replica
"""
FORGET_REFUSALS = "DELETE FROM refusals WHERE rowid IN (SELECT rowid FROM refusals WHERE minute < ? LIMIT ?)"


def add_refusals(connection: sqlite3.Connection, counts: Sequence[RefusalCount]) -> None:
    rows = [(each.minute, each.reason, each.replica, each.status, each.count) for each in counts]
    connection.executemany(ADD_REFUSALS, rows)


def read_refusals(connection: sqlite3.Connection, since: float, until: float) -> list[RefusalCount]:
    return [RefusalCount(*row) for row in connection.execute(READ_REFUSALS, (since - MINUTE, until)).fetchall()]


def forget_refusals(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` counts of minutes that began before a time; return how many."""
    return connection.execute(FORGET_REFUSALS, (before, limit)).rowcount
