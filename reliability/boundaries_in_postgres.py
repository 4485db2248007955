"""The boundaries inside the PostgreSQL store: before a statement is sent, and once it is answered."""

import asyncio
from typing import Any

import asyncpg

from reliability.boundaries import Act, wrap
from whereby_trigger.store.postgres import lease, rooms, webhooks

STATEMENTS = {
    "insert": webhooks.ADD,
    "decide": webhooks.DECIDE,
    "blame": webhooks.BEGIN_ATTEMPT,
    "claim": lease.TAKE_ORPHANED,
    "request": rooms.WAIT,
    "take": rooms.TAKE,
    "move": rooms.MOVE,
}
COMMIT = "COMMIT"


def put_around(step: str, before: Act, after: Act) -> None:
    """Call `before` and `after` around a step of the store."""
    if step == "commit":
        _around(COMMIT, before, after)
        _around_insert_in_flight(before, after)
    else:
        _around(STATEMENTS[step], before, after)


def _around(statement: str, before: Act, after: Act) -> None:
    def is_it(connection: Any, query: str, *arguments: Any, **keywords: Any) -> bool:
        return query == statement

    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        wrap(asyncpg.Connection, name, before, after, is_it)


def _around_insert_in_flight(before: Act, after: Act) -> None:
    """Call `before` while an insert is in flight: most inserts are transactions of their own, without a COMMIT."""
    original = asyncpg.Connection.fetch

    async def fetch(connection: Any, query: str, *arguments: Any, **keywords: Any) -> Any:
        if query != webhooks.ADD or connection.is_in_transaction():
            return await original(connection, query, *arguments, **keywords)
        coming = asyncio.ensure_future(original(connection, query, *arguments, **keywords))
        await asyncio.sleep(0)
        before()
        rows = await coming
        after()
        return rows

    setattr(asyncpg.Connection, "fetch", fetch)  # noqa: B010 - its types do not allow a plain assignment
