"""The store on a SQLite file: one writer thread, one reading connection, and a lock that shows this replica alive."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from whereby_trigger.errors import LifecycleError, StoreUnavailable
from whereby_trigger.store.records import Added, Arrival, Decision, Pending, Query, Record
from whereby_trigger.store.sqlite import file, migrate, statements
from whereby_trigger.store.sqlite.lock import FileLock, LifeLock, bury_if_dead
from whereby_trigger.store.sqlite.writer import Writer

CLOSE_TIMEOUT = 10.0
PRUNE_ROWS = 500


class SqliteStore:
    """Remember webhooks and decisions in a SQLite file that several processes of one machine may share."""

    def __init__(self, url: str) -> None:
        self.path = file.path_of(url)
        self.replica = uuid4().hex
        self._open: _Open | None = None

    @property
    def location(self) -> str:
        return str(self.path)

    async def open(self, changed: Callable[[], None]) -> None:
        connection, turn, life = await asyncio.to_thread(self._prepare)
        writer = Writer(connection, turn, changed)
        self._open = _Open(writer, turn, life, _Reader(self.path))

    async def close(self) -> None:
        if self._open is None:
            return
        state, self._open = self._open, None
        leaving = state.writer.submit(lambda connection: connection.execute(statements.LEAVE, (self.replica,)).rowcount)
        await state.writer.close(CLOSE_TIMEOUT)
        leaving.cancel()
        await state.reader.close()
        state.life.close()

    def add(self, arrival: Arrival) -> Awaitable[Added]:
        return self._write(partial(statements.add, arrival=arrival, owner=self.replica))

    def decide(self, decision: Decision) -> Awaitable[bool]:
        return self._write(partial(statements.decide, decision=decision, owner=self.replica), kept=True)

    def blame(self, seq: int) -> Awaitable[int]:
        return self._write(partial(statements.blame, seq=seq, owner=self.replica))

    def note(self, id: str, error: str) -> None:
        noted = self._write(partial(statements.note, id=id, error=error), kept=True)
        noted.add_done_callback(lambda noted: noted.cancelled() or noted.exception())

    def claim(self) -> Awaitable[int]:
        is_dead = partial(bury_if_dead, self.path)
        return self._write(partial(statements.claim, owner=self.replica, is_dead=is_dead))

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        return self._read(partial(statements.pending, owner=self.replica, after=after, limit=limit))

    def find(self, query: Query) -> Awaitable[list[Record]]:
        return self._read(partial(statements.find, query=query))

    def replay(self, query: Query, now: float) -> Awaitable[list[str]]:
        return self._write(partial(statements.replay, query=query, now=now))

    async def prune(self, before: float) -> int:
        total, after = 0, 0
        while after is not None:
            step = partial(statements.prune, before=before, after=after, limit=PRUNE_ROWS)
            forgotten, after = await self._write(step)
            total += forgotten
        return total

    def ping(self, now: float) -> Awaitable[None]:
        return self._write(lambda connection: connection.execute(statements.SEEN, (now, self.replica)).rowcount)

    def _prepare(self) -> tuple[sqlite3.Connection, FileLock, LifeLock]:
        file.create(self.path)
        turn = FileLock(self.path.with_name(self.path.name + "-lock"))
        connection = file.connect(self.path)
        life = LifeLock(self.path, self.replica)
        try:
            turn.acquire(file.BUSY_TIMEOUT)
            migrate.migrate(connection, self.path)
            connection.execute(statements.ENTER, (self.replica, os.getpid(), time.time()))
            turn.release()
        except BaseException as error:
            life.close()
            connection.close()
            turn.close()
            if isinstance(error, sqlite3.Error):
                raise file.opening_failed(self.path, error) from error
            if isinstance(error, TimeoutError):
                raise file.held_locked(self.path) from error
            raise
        return connection, turn, life

    def _write(self, work: Callable[[sqlite3.Connection], Any], *, kept: bool = False) -> "asyncio.Future[Any]":
        return self._opened.writer.submit(work, kept=kept)

    def _read(self, work: Callable[[sqlite3.Connection], Any]) -> Awaitable[Any]:
        return self._opened.reader.run(work)

    @property
    def _opened(self) -> "_Open":
        if self._open is None:
            raise LifecycleError("the store is not open: start the trigger first")
        return self._open


class _Reader:
    """Read in a thread of its own, so that no reader waits for a writer."""

    def __init__(self, path: Path) -> None:
        self._connection = file.connect(path, readonly=True)
        self._thread = ThreadPoolExecutor(1, "whereby-trigger-reader")

    async def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store cannot be read now: {error}") from error

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()


class _Open:
    """Hold what an open store consists of."""

    def __init__(self, writer: Writer, turn: FileLock, life: LifeLock, reader: _Reader) -> None:
        self.writer, self.turn, self.life, self.reader = writer, turn, life, reader
