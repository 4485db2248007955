"""SQL for runs on SQLite, as plain functions of a connection inside the transaction that changes their room."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from whereby_trigger.store.records import RunQuery, RunRecord, RunReport
from whereby_trigger.store.states import RunOutcome
from whereby_trigger.webhook import room_path

BEGIN = """
INSERT INTO runs (entry, key, webhook, replica, attempt, started_at)
SELECT id, key, webhook, owner, attempt, max(since, COALESCE(
    (SELECT ended_at FROM runs WHERE runs.entry = rooms.id AND runs.attempt = rooms.attempt - 1), since
)) FROM rooms WHERE id = ?
"""
"""A replica that waited for another to write took its time before that: a run begins after the last one has ended."""
CURRENT = "entry = :entry AND attempt = (SELECT attempt FROM rooms WHERE id = :entry)"
GO_LIVE = f"UPDATE runs SET live_at = :now, pid = :pid WHERE {CURRENT}"  # noqa: S608
END = f"""
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
LIST = f"SELECT {', '.join(COLUMNS)} FROM runs"  # noqa: S608
FORGET = "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE ended_at < ? ORDER BY ended_at LIMIT ?)"


def begin(connection: sqlite3.Connection, entry: int) -> None:
    """Record the run that begins with the taking of a room."""
    connection.execute(BEGIN, (entry,))


def go_live(connection: sqlite3.Connection, entry: int, pid: int | None, now: float) -> None:
    connection.execute(GO_LIVE, {"entry": entry, "pid": pid, "now": now})


def end(connection: sqlite3.Connection, entry: int, reason: str, report: RunReport, now: float) -> None:
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
    connection.execute(END, values)


def find(connection: sqlite3.Connection, query: RunQuery) -> list[RunRecord]:
    statement, values = select(query)
    return [_run(row) for row in connection.execute(statement, values).fetchall()]


def select(query: RunQuery) -> tuple[str, list[Any]]:
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
    return f"{LIST} WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT ?", [*values, limit]


def in_room(room: str) -> dict[str, tuple[Any, ...]]:
    """Return the conditions that a row is of a room, given as a key or a name, by the index of names."""
    name = "substr(key, instr(key, '/')) = ?"
    if room.startswith("/"):
        return {name: (room_path(room),)}
    # Without the +, SQLite puts the key into the condition on the name, and no longer finds the index.
    return {name: ("/" + room.partition("/")[2],), "+key = ?": (room,)}


def forget(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget at most `limit` runs that ended before a time; return how many."""
    return connection.execute(FORGET, (before, limit)).rowcount


def _run(row: Sequence[Any]) -> RunRecord:
    values = dict(zip(COLUMNS, row, strict=True))
    outcome = values["outcome"]
    return RunRecord(**values | {"outcome": None if outcome is None else RunOutcome(outcome)})
