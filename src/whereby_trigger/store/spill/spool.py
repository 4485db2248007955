"""The spool: a file in which deliveries wait for the database, in the order in which they came, each synced to disk."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Sequence, Set
from functools import partial
from typing import Final

from msgspec import MsgspecError, Struct, msgpack

from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store.records import Arrival
from whereby_trigger.store.spill import opening
from whereby_trigger.store.sqlite import file
from whereby_trigger.store.sqlite.writer import Writer
from whereby_trigger.threads import in_thread

APPEND = "INSERT INTO deliveries (arrival) VALUES (?)"
HEAD = "SELECT seq, arrival FROM deliveries WHERE refused IS NULL ORDER BY seq"
REMOVE = "DELETE FROM deliveries WHERE seq = ?"
REFUSE = "UPDATE deliveries SET refused = ? WHERE seq = ?"
PING = f"PRAGMA user_version = {opening.FORMAT}"

BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
CLOSE_TIMEOUT: Final = 4.0


class Spooled(Struct, frozen=True):
    """Hold a delivery that waits; `arrival` is None where this program cannot read it."""

    seq: int
    arrival: Arrival | None


class Spool:
    """Keep deliveries in a SQLite file that one process at a time has open; `length` is how many wait in it.

    Raises ConfigError for a URL that names no file. Verbs raise StoreUnavailable where the disk does not take it.
    """

    def __init__(self, url: str) -> None:
        self.path = file.path_of(url, opening.CALLED)
        self.length = 0
        self._gone: set[int] = set()
        self._writer: Writer | None = None

    async def open(self) -> None:
        """Open the file, created where there is none; what the database refused waits again.

        Raises StoreError where the file cannot be used, SpillInUse where another process has it open.
        """
        with contextlib.ExitStack() as undo, file.shortage_in_words(self.path, opening.CALLED):
            database, turn, self.length = await in_thread(opening.enter, self.path)
            for each in (database, turn):
                undo.callback(each.close)
            self._identity = file.Identity(self.path)
            self._writer = Writer(database, turn, lambda: None, opening.CALLED)
            undo.pop_all()

    async def close(self) -> None:
        """Finish what was handed over, and let go of the file."""
        if self._writer is not None:
            await self.remove(())
            await self._writer.close(CLOSE_TIMEOUT)

    def append(self, arrival: Arrival) -> "asyncio.Future[None]":
        """Add a delivery at the end."""

        def work(connection: sqlite3.Connection) -> None:
            self._identity.check()
            connection.execute(APPEND, (msgpack.encode(arrival),))

        # Counted from now on: nobody may overtake what is on its way into the file.
        self.length += 1
        appended = self._opened.submit(work)
        appended.add_done_callback(self._appended)
        return appended

    def head(self) -> Awaitable[list[Spooled]]:
        """Read the oldest, once all that was handed over before is there: at most BATCH of them, or BATCH_BYTES."""
        return self._opened.submit(partial(_head, gone=frozenset(self._gone)))

    async def remove(self, seqs: Sequence[int]) -> None:
        """Forget deliveries that the database has; on a disk that is full, at first in memory only.

        A full disk takes no deletion either, and must not keep deliveries from a database that is back. What a crash
        brings up again then is a duplicate.
        """
        self._gone.update(seqs)
        self.length -= len(seqs)
        rows = [(seq,) for seq in self._gone]
        with contextlib.suppress(StoreUnavailable):
            if rows:
                await self._opened.submit(lambda connection: connection.executemany(REMOVE, rows).rowcount)
            self._gone.difference_update(seq for (seq,) in rows)

    async def set_aside(self, seq: int, reason: str) -> None:
        """Keep a delivery, but have it wait no more until the file is opened again."""
        await self._opened.submit(lambda connection: connection.execute(REFUSE, (reason, seq)).rowcount)
        self.length -= 1

    def ping(self) -> Awaitable[None]:
        """Write something small, to tell whether the disk takes it."""

        def work(connection: sqlite3.Connection) -> None:
            self._identity.check()
            connection.execute(PING).close()

        return self._opened.submit(work)

    @property
    def _opened(self) -> Writer:
        if self._writer is None:
            raise StoreUnavailable("the spill is not open: start the trigger first")
        return self._writer

    def _appended(self, appended: "asyncio.Future[None]") -> None:
        if appended.cancelled() or appended.exception() is not None:
            self.length -= 1


def _head(connection: sqlite3.Connection, gone: Set[int]) -> list[Spooled]:
    found: list[Spooled] = []
    size = 0
    for seq, packed in connection.execute(HEAD):
        if seq in gone:
            continue
        size += len(packed)
        if found and (len(found) == BATCH or size > BATCH_BYTES):
            break
        found.append(Spooled(seq, _unpack(packed)))
    return found


def _unpack(packed: bytes) -> Arrival | None:
    try:
        return msgpack.decode(packed, type=Arrival)
    except MsgspecError:
        return None
