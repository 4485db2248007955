"""The spill's file: deliveries that wait for the database, in order of arrival, each synced to disk."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from msgspec import MsgspecError, Struct, msgpack

from whereby_trigger.errors import SpillInUse, StoreError, StoreUnavailable
from whereby_trigger.store.records import Arrival
from whereby_trigger.store.sqlite.connection import (
    Identity,
    connect,
    create,
    make_durable,
    not_writable,
    opening_failed,
    path_of,
    shortage_in_words,
)
from whereby_trigger.store.sqlite.journal import Database
from whereby_trigger.store.sqlite.lock import FileLock
from whereby_trigger.store.sqlite.writer import Writer
from whereby_trigger.threads import in_thread

CALLED: Final = "spill"
OURS: Final = 0x77745350
"""What marks a file as a spool, in SQLite's header."""

FORMAT: Final = 1
CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE deliveries (seq INTEGER PRIMARY KEY AUTOINCREMENT, arrival BLOB NOT NULL, refused TEXT);
PRAGMA application_id = {OURS};
PRAGMA user_version = {FORMAT};
COMMIT;
"""
TRY_AGAIN = "UPDATE deliveries SET refused = NULL WHERE refused IS NOT NULL"
COUNT = "SELECT count(*), count(refused) FROM deliveries"

LOCK_WITHIN: Final = 1.0


class SpillContent(Struct, frozen=True):
    """Tell how many deliveries are in a spool: those that wait, and those that the database refused."""

    waiting: int
    refused: int


class HeldLock:
    """Stand in for the turn to write, which one process has for as long as it has the file open."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def close(self) -> None:
        self._lock.close()


def open_spill(path: Path) -> tuple[Database, HeldLock, int]:
    """Open a spool, created if there is none; return what it is written with, and how many deliveries wait in it.

    Raises StoreError where the file cannot be used, SpillInUse where another process has it open.
    """
    with ExitStack() as undo, _explained(path):
        create(path, CALLED)
        lock = FileLock(path.with_name(path.name + "-lock"))
        undo.callback(lock.close)
        _take_lock(lock, path)
        connection = connect(path, called=CALLED)
        undo.callback(connection.close)
        is_new = _is_new(connection, path)
        make_durable(connection, path, CALLED)
        if is_new:
            connection.executescript(CREATE)
            # A journal that somebody cuts short must not take the table along.
            connection.execute("PRAGMA wal_checkpoint")
        # Another program may be behind the database by now, or this one may be another.
        connection.execute(TRY_AGAIN)
        waiting = _count(connection).waiting
        if not waiting:
            # It gives back space, and on a full disk cannot.
            with suppress(sqlite3.OperationalError):
                connection.execute("VACUUM")
        database = Database(path, connection, CALLED)
        undo.callback(database.close)
        undo.pop_all()
        return database, HeldLock(lock), waiting


def read_content(path: Path) -> SpillContent:
    """Count what is in a spool, beside a process that has it open if there is one.

    Raises StoreError where there is no spool.
    """
    with ExitStack() as undo, _explained(path):
        connection = connect(path, readonly=True, called=CALLED)
        undo.callback(connection.close)
        return SpillContent(0, 0) if _is_new(connection, path) else _count(connection)


def _take_lock(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(LOCK_WITHIN)
    except TimeoutError:
        raise SpillInUse(
            f"the spill {path} is in use by another replica, and each needs one of its own: "
            "name another file with spill=, or stop the process that has this one"
        ) from None


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Tell whether a database is empty; raises StoreError where it is no spool, or a newer program's."""
    if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        return True
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (format,) = connection.execute("PRAGMA user_version").fetchone()
    if mark != OURS:
        raise StoreError(f"the spill {path} is a database of another kind: name another file with spill=")
    if format > FORMAT:
        raise StoreError(f"the spill {path} was written by a newer whereby-trigger: upgrade, or let that one drain it")
    return False


def _count(connection: sqlite3.Connection) -> SpillContent:
    total, refused = connection.execute(COUNT).fetchone()
    return SpillContent(total - refused, refused)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say why the file cannot be used."""
    try:
        yield
    except sqlite3.Error as error:
        raise opening_failed(path, error, CALLED) from error
    except OSError as error:
        raise not_writable(path, error, CALLED) from error


APPEND = "INSERT INTO deliveries (arrival) VALUES (?)"
HEAD = "SELECT seq, arrival FROM deliveries WHERE refused IS NULL ORDER BY seq"
REMOVE = "DELETE FROM deliveries WHERE seq = ?"
REFUSE = "UPDATE deliveries SET refused = ? WHERE seq = ?"
PING = f"PRAGMA user_version = {FORMAT}"

BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
CLOSE_TIMEOUT: Final = 4.0


class SpilledDelivery(Struct, frozen=True):
    """Hold a delivery that waits; `arrival` is None where this program cannot read it."""

    seq: int
    arrival: Arrival | None


class SpillFile:
    """Keep deliveries in a SQLite file that one process at a time has open; `length` is how many wait in it.

    Raises ConfigError for a URL that names no file. Verbs raise StoreUnavailable where the disk does not take it.
    """

    def __init__(self, url: str) -> None:
        self.path = path_of(url, CALLED)
        self.length = 0
        # How often the head was read, and how many have been appended since.
        self._reads = self._appended_since = 0
        self._gone: set[int] = set()
        self._writer: Writer | None = None

    async def open(self) -> None:
        """Open the file, created where there is none; what the database refused waits again.

        Raises StoreError where the file cannot be used, SpillInUse where another process has it open.
        """
        with contextlib.ExitStack() as undo, shortage_in_words(self.path, CALLED):
            database, turn, self.length = await in_thread(open_spill, self.path)
            for each in (database, turn):
                undo.callback(each.close)
            self._identity = Identity(self.path)
            self._writer = Writer(database, turn, lambda: None, CALLED)
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
        appended = self._opened.submit(work)
        self.length += 1
        self._appended_since += 1
        appended.add_done_callback(partial(self._appended, self._reads))
        return appended

    async def head(self) -> list[SpilledDelivery]:
        """Read the oldest, once all that was handed over before is there: at most BATCH of them, or BATCH_BYTES."""
        self._reads += 1
        self._appended_since = 0
        found: list[SpilledDelivery] = await self._opened.submit(partial(_head, gone=frozenset(self._gone)))
        if not found:
            # A commit that failed may be there all the same, and a journal that was cut short takes rows along: whoever
            # waited for a length that is wrong would wait for ever.
            self.length = self._appended_since
        return found

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

    def _appended(self, reads: int, appended: "asyncio.Future[None]") -> None:
        if appended.cancelled() or appended.exception() is not None:
            self.length -= 1
            self._appended_since -= reads == self._reads


def _head(connection: sqlite3.Connection, gone: Set[int]) -> list[SpilledDelivery]:
    found: list[SpilledDelivery] = []
    size = 0
    for seq, packed in connection.execute(HEAD):
        if seq in gone:
            continue
        size += len(packed)
        if found and (len(found) == BATCH or size > BATCH_BYTES):
            break
        found.append(SpilledDelivery(seq, _unpack(packed)))
    return found


def _unpack(packed: bytes) -> Arrival | None:
    try:
        return msgpack.decode(packed, type=Arrival)
    except MsgspecError:
        return None
