"""The contents of a store, read by the benchmark's own SQL: it does not rely on what the program reports."""

import contextlib
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from msgspec import Struct

from whereby_trigger.store.sqlite.connection import path_of
from whereby_trigger.testing.program import until


class Count(Struct, frozen=True):
    """Hold how many webhooks are stored, and how many of them fired."""

    stored: int
    fired: int


class Books(ABC):
    """Read a store's contents; `table` holds its webhooks."""

    table = "webhooks"

    async def last(self) -> int:
        """Return the number of the newest webhook, 0 without one."""
        (last,) = await self.ask(f"SELECT coalesce(max(seq), 0) FROM {self.table}")
        return int(last)

    async def counted(self, after: int) -> Count:
        """Count the webhooks with a number above `after`."""
        fired = "coalesce(sum(CASE WHEN state = 'fired' THEN 1 ELSE 0 END), 0)"
        return Count(*await self.ask(f"SELECT count(*), {fired} FROM {self.table} WHERE seq > {after}"))

    async def until_decided(self, within: float) -> float:
        """Wait until no webhook is pending, and return the time.monotonic() of that; raises TimeoutError."""

        async def all_decided() -> bool:
            return not await self.ask(f"SELECT 1 FROM {self.table} WHERE state = 'pending' LIMIT 1")

        if not await until(all_decided, within):
            raise TimeoutError(f"webhooks are pending after {within:g} s")
        return time.monotonic()

    async def leave_pending(self, webhooks: int, now: float) -> None:
        """Turn the newest webhooks into what a stopped replica leaves undecided; nothing else may write meanwhile."""
        newest = f"(SELECT seq FROM {self.table} ORDER BY seq DESC LIMIT {webhooks})"
        await self.tell(
            f"UPDATE {self.table} SET state = 'pending', owner = NULL, takeovers = 1, attempts = 0, reason = '', "
            f"decided_at = NULL, received_at = {now}, queued_at = {now} WHERE seq IN {newest}"
        )

    @abstractmethod
    async def ask(self, question: str) -> tuple[Any, ...]:
        """Return the first row of an answer, or an empty tuple."""

    @abstractmethod
    async def tell(self, statement: str) -> None:
        """Execute a statement."""

    @abstractmethod
    async def size(self) -> int:
        """Return the store's size on disk, in bytes."""


class SqliteBooks(Books):
    """Read a SQLite file."""

    def __init__(self, url: str) -> None:
        self._path = path_of(url)

    async def ask(self, question: str) -> tuple[Any, ...]:
        with self._connected() as connection:
            return tuple(connection.execute(question).fetchone() or ())

    async def tell(self, statement: str) -> None:
        with self._connected() as connection:
            connection.execute(statement)

    async def size(self) -> int:
        files = [self._path, *(Path(f"{self._path}{end}") for end in ("-wal", "-shm"))]
        return sum(file.stat().st_size for file in files if file.exists())

    def _connected(self) -> "contextlib.closing[sqlite3.Connection]":
        place = f"{self._path.as_uri()}?mode=rw"
        return contextlib.closing(sqlite3.connect(place, uri=True, timeout=5, isolation_level=None))


class PostgresBooks(Books):
    """Read a PostgreSQL database."""

    table = "whereby_trigger.webhooks"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def ask(self, question: str) -> tuple[Any, ...]:
        return tuple(await self._connection.fetchrow(question) or ())

    async def tell(self, statement: str) -> None:
        await self._connection.execute(statement)

    async def size(self) -> int:
        (size,) = await self.ask(f"SELECT pg_total_relation_size('{self.table}')")
        return int(size)


@asynccontextmanager
async def looking_into(url: str) -> AsyncIterator[Books]:
    """Open a store's books for an `async with` block."""
    if url.startswith("sqlite:"):
        yield SqliteBooks(url)
        return
    # A table filled a moment ago has no statistics: PostgreSQL would scan all of it for one row.
    connection = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    try:
        yield PostgresBooks(connection)
    finally:
        await connection.close()
