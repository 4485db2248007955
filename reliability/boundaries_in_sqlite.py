"""The boundaries inside the SQLite store."""

import functools
import sqlite3
from typing import Any

from reliability.boundaries import Act, wrap
from whereby_trigger.store.sqlite import lease, rooms, webhooks

PLACES = {
    "insert": (webhooks, "add"),
    "decide": (webhooks, "decide"),
    "blame": (webhooks, "begin_attempt"),
    "claim": (lease, "take_over_dead"),
    "request": (rooms, "request"),
    "take": (rooms, "take"),
    "move": (rooms, "move"),
}


def put_around(step: str, before: Act, after: Act) -> None:
    """Call `before` and `after` around a step of the store."""
    if step == "commit":
        _around_commit(before, after)
    else:
        wrap(*PLACES[step], before, after)


def _around_commit(before: Act, after: Act) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql != "COMMIT":
                return super().execute(sql, *parameters)
            before()
            cursor = super().execute(sql, *parameters)
            after()
            return cursor

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
