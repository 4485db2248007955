"""Conditions under which SQLite would not keep what it acknowledged: set around our code, which must refuse them."""

import functools
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any


def without_shared_memory() -> None:
    """Simulate a file system without shared memory, such as network file systems: it cannot have a write-ahead log."""
    original = sqlite3.connect

    def connect(database: str, **keywords: Any) -> Any:
        return original(f"{database}&vfs=unix-dotfile", **keywords)

    sqlite3.connect = connect  # type: ignore[assignment]


def without_full_sync() -> None:
    """Simulate a SQLite build that stays at synchronous=NORMAL, whatever it is asked for."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous = FULL", "synchronous = NORMAL"), *parameters)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]


CONDITIONS: Mapping[str, Callable[[], None]] = {
    "without shared memory": without_shared_memory,
    "without full sync": without_full_sync,
}
