"""What asyncpg asks about PostgreSQL's built-in types, asked once in a test process instead of on each connection.

It is a query of 100 lines, sent for the first array of a kind on each connection, and costs more than the rest of a
usual test. The answer is the same in every database of a server's version, since these types have fixed numbers.
Programs that tests start ask for themselves, as a user's does.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import asyncpg

FIRST_OWN = 10_000
"""Numbers from here on are assigned when a database is created, to types that may differ (FirstGenbkiObjectId)."""

NOTHING_SENT = SimpleNamespace(name="none")
"""Stands for the statement that was executed: a named one leaves the caller's own as it was."""


@cache
def ask_once() -> None:
    """Make all connections of this process share the answers about built-in types."""
    answered: dict[tuple[int, frozenset[int]], Sequence[Any]] = {}
    kind: Any = asyncpg.Connection
    original = kind._introspect_types

    async def ask(connection: Any, numbers: Iterable[int], timeout: float | None) -> tuple[Sequence[Any], Any]:
        wanted = connection.get_server_version().major, frozenset(numbers)
        if wanted in answered:
            return answered[wanted], NOTHING_SENT
        types, statement = await original(connection, numbers, timeout)
        if max(wanted[1]) < FIRST_OWN:
            answered[wanted] = types
        return types, statement

    kind._introspect_types = ask
