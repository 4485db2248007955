"""A test's store: a SQLite store that needs no threads, in a file that stays open from one test to the next.

To start threads and to open a file take most of the time of a test. What is read and written is what SqliteStore reads
and writes, by its code; a test waits for it anyway.
"""

import asyncio
import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Final

from whereby_trigger.clock import BootClock
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.process import check_effect
from whereby_trigger.store.protocol import unheard
from whereby_trigger.store.sqlite.connection import Identity
from whereby_trigger.store.sqlite.lock import LifeLock
from whereby_trigger.store.sqlite.opening import explained, open_alone
from whereby_trigger.store.sqlite.store import OpenSqlite, SqliteStore
from whereby_trigger.store.sqlite.writer import POLL, RETRY, Writer, reads_explained

KEPT: Final = 4
"""Files that stay open while no test uses them: each takes eight descriptors."""

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'version'"


class StoreFile:
    """Hold an open file with the tables of a store, in a folder of its own; raises StoreError if it cannot be made."""

    def __init__(self) -> None:
        # No TemporaryDirectory: it is removed at the end of a process that was forked off this one, too.
        self.path = Path(tempfile.mkdtemp(prefix="whereby-trigger-")).resolve() / "test.db"
        try:
            self.database, self.turn = open_alone(self.path)
        except BaseException:
            self._remove()
            raise
        self._identity = Identity(self.path)
        self._tables = [name for (name,) in self.database.connection.execute(TABLES)]

    def empty(self, join: Callable[[sqlite3.Connection], None]) -> None:
        """Delete every row, and register a replica by `join`."""
        with explained(self.path), self.turn:
            connection = self.database.prepare()
            connection.execute("BEGIN IMMEDIATE")
            for table in self._tables:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608
            join(connection)
            connection.execute("COMMIT")

    @property
    def usable(self) -> bool:
        """True if the next test can have it: the file is whole, in its place, and between two transactions."""
        database = self.database
        try:
            return database.is_intact() and self._identity.holds() and not database.prepare().in_transaction
        except OSError:
            return False

    def close(self) -> None:
        self.database.close()
        self.turn.close()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)


_idle: list[StoreFile] = []
_inherited: list[StoreFile] = []
"""Files of the process that this one was forked off: never closed here, which could remove the journal there."""


_forked = False


def _close_idle() -> None:
    while _idle:
        _idle.pop().close()


def _leave_to_parent() -> None:
    global _forked
    _forked = True
    _inherited.extend(_idle)
    _idle.clear()


atexit.register(_close_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def store_file() -> Iterator[StoreFile]:
    """Lend a file for a `with` block, which nobody else uses meanwhile; any thread may call this."""
    file = _take()
    process = os.getpid()
    try:
        yield file
    finally:
        if os.getpid() != process:
            _inherited.append(file)
        elif len(_idle) < KEPT and not _may_end_at_once() and file.usable:
            _idle.append(file)
        else:
            file.close()


def _may_end_at_once() -> bool:
    """Return True for a child by fork or by multiprocessing, which mostly ends without calling `_close_idle`."""
    return _forked or parent_process() is not None


def _take() -> StoreFile:
    with suppress(IndexError):
        while not (file := _idle.pop()).usable:
            file.close()
        return file
    return StoreFile()


class TestStore(SqliteStore):
    """Store in a file that is open already, on the event loop; it is empty when the store is opened."""

    __test__ = False

    def __init__(self, file: StoreFile, lease_ttl: float, clock: BootClock, wall: Callable[[], float]) -> None:
        super().__init__(f"sqlite:///{file.path}", lease_ttl, clock, wall, synced=False)
        self._file = file

    @property
    def idle(self) -> bool:
        """True if all that was written is committed, or has failed."""
        return self._writing is None or self._writing.writer.idle

    @property
    def written(self) -> int:
        """How many rows were written so far; it grows by each that is."""
        return self._file.database.connection.total_changes

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        check_effect("opening a store to write")
        life = LifeLock(self.path, self.replica)
        try:
            self._file.empty(partial(self._join, logged=changed is not None))
            writer = _WriterOnLoop(
                self._file.database, self._file.turn, changed or unheard, self.errors, summary=self._counts
            )
        except BaseException:
            life.close()
            raise
        self._writing = OpenSqlite(writer, life)
        self.lease.begin(self._joined_at)

    def let_go(self) -> None:
        """Use the file no longer, even if whoever closes the store was cancelled: the next block has it alone."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.writer.end()
            writing.life.close()

    async def _read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        # As with a thread, others go on meanwhile.
        await asyncio.sleep(0)
        if self._writing is None:
            raise StoreUnavailable("the store is not open: start the trigger first")
        with reads_explained(self.errors):
            return work(self._file.database.connection)


class _WriterOnLoop(Writer):
    """Commit on the event loop what was handed over in one of its turns; leave the file open at the end."""

    def _begin(self) -> None:
        self._timer = self._loop.call_later(POLL, self._look)

    async def close(self, timeout: float) -> None:
        self.end()

    def end(self) -> None:
        # What is kept would be tried again in the file of the next block.
        self._closed = True
        self._timer.cancel()
        self._hand_over()
        self._give_up()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._do(gathered)

    def _look(self) -> None:
        if self._kept:
            self._hand_over()
        else:
            self._look_for_changes()
        self._timer = self._loop.call_later(RETRY if self._kept else POLL, self._look)

    def _call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        callback(*arguments)
