"""SQL for runs on PostgreSQL: reading and forgetting them; `rooms` writes them together with their rooms."""

from typing import Any

from whereby_trigger.store.postgres.connection import Connection, affected
from whereby_trigger.store.postgres.selecting import Selection
from whereby_trigger.store.records import RunQuery, RunRecord
from whereby_trigger.store.states import RunOutcome

LIST = f"SELECT {', '.join(RunRecord.__struct_fields__)} FROM whereby_trigger.runs"  # noqa: S608
FORGET = """
DELETE FROM whereby_trigger.runs WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.runs WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def find(connection: Connection, query: RunQuery) -> list[RunRecord]:
    statement, values = select(query)
    return [_run(row) for row in await connection.fetch(statement, *values)]


def select(query: RunQuery) -> tuple[str, list[Any]]:
    """Return the statement of a query, and its values."""
    selection = Selection()
    if query.entry is not None:
        selection.where("entry = {}", query.entry)
    if query.room is not None:
        selection.where_room(query.room)
    if query.since is not None:
        selection.where("(ended_at IS NULL OR ended_at >= {})", query.since)
    if query.until is not None:
        selection.where("started_at < {}", query.until)
    order = "id DESC" if query.entry is not None or query.room is not None else "started_at DESC, id DESC"
    return f"{LIST} {selection.ordered(order, query.limit)}", selection.values


async def forget(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` runs that ended before a time; return how many."""
    return affected(await connection.execute(FORGET, before, limit))


def _run(row: Any) -> RunRecord:
    outcome = row["outcome"]
    return RunRecord(**{**row, "outcome": None if outcome is None else RunOutcome(outcome)})
