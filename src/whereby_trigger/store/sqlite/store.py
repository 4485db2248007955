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
from whereby_trigger.store.rooms import Heard, Room, RoomClaim, RoomMove, RoomRequest
from whereby_trigger.store.sqlite import file, lease, migrate, rooms, statements
from whereby_trigger.store.sqlite.lock import FileLock, LifeLock, bury_if_dead
from whereby_trigger.store.sqlite.writer import Writer
from whereby_trigger.store.states import RoomState

CLOSE_TIMEOUT = 10.0
PRUNE_ROWS = 500


class SqliteStore:
    """Remember webhooks, decisions and rooms in a SQLite file that several processes of one machine may share.

    `lease_ttl` is for how many seconds this replica is taken for alive after each renewal.
    """

    def __init__(self, url: str, lease_ttl: float = 30.0) -> None:
        self.path = file.path_of(url)
        self.replica = uuid4().hex
        self._lease_ttl = lease_ttl
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
        leaving = state.writer.submit(partial(lease.leave, id=self.replica, now=time.time()))
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

    def claim(self, now: float, max_age: float) -> Awaitable[int]:
        replica, is_dead = self.replica, partial(bury_if_dead, self.path)

        def work(connection: sqlite3.Connection) -> int:
            unowned = statements.claim_unowned(connection, replica)
            return unowned + lease.bury_the_dead(connection, replica, now, max_age, is_dead)

        return self._write(work)

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
        await self._write(partial(rooms.forget, before=before))
        return total

    def ping(self, now: float) -> Awaitable[None]:
        return self._write(lambda connection: connection.execute(statements.SEEN, (now, self.replica)).rowcount)

    def renew(self, ttl: float) -> Awaitable[bool]:
        return self._write(partial(lease.renew, id=self.replica, now=time.time(), ttl=ttl))

    async def rejoin(self, ttl: float) -> None:
        life, self.replica = self._opened.life, uuid4().hex
        self._opened.life = LifeLock(self.path, self.replica)
        life.close()
        await self._write(partial(lease.join, id=self.replica, pid=os.getpid(), now=time.time(), ttl=ttl), kept=True)

    def request(self, request: RoomRequest, now: float) -> Awaitable[RoomClaim]:
        return self._write(partial(rooms.request, request=request, now=now))

    def take(self, slots: int, now: float) -> Awaitable[list[Room]]:
        return self._write(partial(rooms.take, owner=self.replica, slots=slots, now=now))

    def move(self, move: RoomMove, now: float) -> Awaitable[bool]:
        return self._write(partial(rooms.move, move=move, owner=self.replica, now=now), kept=True)

    def stop(self, key: str, reason: str, now: float) -> Awaitable[RoomState | None]:
        return self._write(partial(rooms.stop, key=key, reason=reason, now=now))

    def rooms(self, *, mine: bool = False, limit: int | None = None) -> Awaitable[list[Room]]:
        work = partial(rooms.own, owner=self.replica) if mine else partial(rooms.read, limit=limit)
        return self._read(work)

    def heard(self, after: int, keys: frozenset[str]) -> Awaitable[Heard]:
        return self._read(partial(rooms.heard, after=after, keys=keys))

    def _prepare(self) -> tuple[sqlite3.Connection, FileLock, LifeLock]:
        file.create(self.path)
        turn = FileLock(self.path.with_name(self.path.name + "-lock"))
        connection = file.connect(self.path)
        life = LifeLock(self.path, self.replica)
        try:
            turn.acquire(file.BUSY_TIMEOUT)
            migrate.migrate(connection, self.path)
            lease.join(connection, self.replica, os.getpid(), time.time(), self._lease_ttl)
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
