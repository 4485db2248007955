"""SQL for what people did by hand on PostgreSQL: one function for each method of the store."""

from whereby_trigger.store.postgres.connection import Connection, affected
from whereby_trigger.store.postgres.selecting import Selection
from whereby_trigger.store.records import ActionQuery, ActionRecord

ADD = """
INSERT INTO whereby_trigger.actions (id, at, actor, action, room, webhook) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO NOTHING
"""
READ = "SELECT id, at, actor, action, room, webhook FROM whereby_trigger.actions"
FORGET = """
DELETE FROM whereby_trigger.actions WHERE id = ANY (ARRAY(
    SELECT id FROM whereby_trigger.actions WHERE at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
))
"""


async def add(connection: Connection, action: ActionRecord) -> None:
    row = (action.id, action.at, action.actor, str(action.action), action.room, action.webhook)
    await connection.execute(ADD, *row)


async def find(connection: Connection, query: ActionQuery) -> list[ActionRecord]:
    selection = Selection()
    selection.where("at >= {} AND at < {}", query.since, query.until)
    if query.room is not None:
        selection.where("room = {}", query.room)
    if query.webhook is not None:
        selection.where("webhook = {}", query.webhook)
    statement = f"{READ} WHERE {selection.conditions} ORDER BY at DESC, id LIMIT {int(query.limit)}"
    return [ActionRecord(**row) for row in await connection.fetch(statement, *selection.values)]


async def forget(connection: Connection, before: float, limit: int) -> int:
    """Forget at most `limit` actions from before a time; return how many."""
    return affected(await connection.execute(FORGET, before, limit))
