"""SQL for what happened on PostgreSQL, beside webhooks and rooms: runs, what people did by hand, and refusals."""

import math
from collections.abc import Sequence
from typing import Any

from whereby_trigger.store.postgres.connection import Connection, Selection, affected
from whereby_trigger.store.records import MINUTE, ActionQuery, ActionRecord, RefusalCount, RunQuery, RunRecord
from whereby_trigger.store.states import RunOutcome

LIST_RUNS = f"SELECT {', '.join(RunRecord.__struct_fields__)} FROM whereby_trigger.runs"  # noqa: S608
FORGET_RUNS = """
DELETE FROM whereby_trigger.runs WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.runs WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def find_runs(connection: Connection, query: RunQuery) -> list[RunRecord]:
    statement, values = select_runs(query)
    return [_run(row) for row in await connection.fetch(statement, *values)]


def select_runs(query: RunQuery) -> tuple[str, list[Any]]:
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
    return f"{LIST_RUNS} {selection.ordered(order, query.limit)}", selection.values


async def forget_runs(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` runs that ended before a time; return how many."""
    return affected(await connection.execute(FORGET_RUNS, before, limit))


def _run(row: Any) -> RunRecord:
    outcome = row["outcome"]
    return RunRecord(**{**row, "outcome": None if outcome is None else RunOutcome(outcome)})


ADD_ACTION = """
INSERT INTO whereby_trigger.actions (id, at, actor, action, room, webhook) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO NOTHING
"""
READ_ACTIONS = "SELECT id, at, actor, action, room, webhook FROM whereby_trigger.actions"
FORGET_ACTIONS = """
DELETE FROM whereby_trigger.actions WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.actions WHERE at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def add_action(connection: Connection, action: ActionRecord) -> None:
    row = (action.id, action.at, action.actor, str(action.action), action.room, action.webhook)
    await connection.execute(ADD_ACTION, *row)


async def find_actions(connection: Connection, query: ActionQuery) -> list[ActionRecord]:
    selection = Selection()
    selection.where("at >= {} AND at < {}", query.since, query.until)
    if query.room is not None:
        selection.where("room = {}", query.room)
    if query.webhook is not None:
        selection.where("webhook = {}", query.webhook)
    statement = f"{READ_ACTIONS} WHERE {selection.conditions} ORDER BY at DESC, id LIMIT {int(query.limit)}"
    return [ActionRecord(**row) for row in await connection.fetch(statement, *selection.values)]


async def forget_actions(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` actions from before a time; return how many."""
    return affected(await connection.execute(FORGET_ACTIONS, before, limit))


ADD_REFUSALS = """
INSERT INTO whereby_trigger.refusals AS refusals (minute, reason, replica, status, count)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::bigint[])
ON CONFLICT (minute, reason, replica) DO UPDATE SET count = greatest(refusals.count, excluded.count)
"""
READ_REFUSALS = """
SELECT minute, reason, replica, status, count FROM whereby_trigger.refusals
WHERE minute > $1 AND minute < $2 ORDER BY minute, reason, replica
"""
FORGET_REFUSALS = """
DELETE FROM whereby_trigger.refusals WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM whereby_trigger.refusals WHERE minute < $1 ORDER BY minute LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def add_refusals(connection: Connection, counts: Sequence[RefusalCount]) -> None:
    rows = [(each.minute, each.reason, each.replica, each.status, each.count) for each in counts]
    if rows:
        await connection.execute(ADD_REFUSALS, *zip(*rows, strict=True))


async def read_refusals(connection: Connection, since: float, until: float) -> list[RefusalCount]:
    # As whole numbers, or the index would not serve.
    bounds = math.floor(since) - MINUTE, math.ceil(until)
    return [RefusalCount(*row) for row in await connection.fetch(READ_REFUSALS, *bounds)]


async def forget_refusals(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` counts of minutes that began before a time; return how many."""
    return affected(await connection.execute(FORGET_REFUSALS, math.ceil(before), limit))
