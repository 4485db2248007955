"""The spill file: deliveries that wait for the database, in order of arrival, each synced to disk."""

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
from whereby_trigger.store.protocol import StoreErrors
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
from whereby_trigger.store.sqlite.privacy import SMALL, empty_journal, write_again
from whereby_trigger.store.sqlite.writer import Writer
from whereby_trigger.threads import in_thread, open_in_thread

CALLED: Final = "spill"
OURS: Final = 0x77745350
"""The application id in SQLite's header that marks a file as a spill file."""

FORMAT: Final = 1
CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE deliveries (seq INTEGER PRIMARY KEY AUTOINCREMENT, arrival BLOB NOT NULL, refused TEXT);
PRAGMA application_id = {OURS};
PRAGMA user_version = {FORMAT};
COMMIT;
"""
TRY_AGAIN = "UPDATE deliveries SET refused = NULL WHERE refused IS NOT NULL"
ALL = "SELECT seq, arrival FROM deliveries ORDER BY seq"
COUNT = "SELECT count(*), count(refused) FROM deliveries"

LOCK_WITHIN: Final = 1.0


class SpillContent(Struct, frozen=True):
    """Count the deliveries in a spill file: those that wait, and those that the database refused."""

    waiting: int
    refused: int


class HeldLock:
    """Act as the lock of writers, which one process holds for as long as it has the file open."""

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
    """Open a spill file, created if there is none; return its database, its lock, and how many deliveries wait.

    Raises StoreError if the file cannot be used, and SpillInUse if another process has it open.
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
            # If somebody cuts the journal short, the table must not be lost with it.
            connection.execute("PRAGMA wal_checkpoint")
        # The database, or this program, may have been upgraded meanwhile, and accept what was refused.
        connection.execute(TRY_AGAIN)
        waiting = _count(connection).waiting
        if not waiting:
            # This frees space, and fails on a full disk. A process that was killed may have left deliveries in the
            # journal that are no longer in the file.
            with suppress(sqlite3.OperationalError):
                connection.execute("VACUUM")
                empty_journal(connection)
        database = Database(path, connection, CALLED)
        undo.callback(database.close)
        undo.pop_all()
        return database, HeldLock(lock), waiting


def _close_spill(opened: tuple[Database, HeldLock, int]) -> None:
    database, lock, _ = opened
    try:
        database.close()
    finally:
        lock.close()


def read_content(path: Path) -> SpillContent:
    """Count what is in a spill file, even while another process has it open.

    Raises StoreError if there is no such file, or it is not a spill file.
    """
    with ExitStack() as undo, _explained(path):
        connection = connect(path, readonly=True, called=CALLED)
        undo.callback(connection.close)
        return SpillContent(0, 0) if _is_new(connection, path) else _count(connection)


def read_arrivals(path: Path) -> list[tuple[int, Arrival]]:
    """Return the deliveries in a spill file, with their numbers; raises StoreError as above.

    Of one that this program cannot decode, the body is all that is there: a person must be found in it, too.
    """
    with ExitStack() as undo, _explained(path):
        connection = connect(path, readonly=True, called=CALLED)
        undo.callback(connection.close)
        rows = [] if _is_new(connection, path) else connection.execute(ALL).fetchall()
        return [(seq, _unpack(packed) or _unread(seq, packed)) for seq, packed in rows]


def _unread(seq: int, packed: bytes) -> Arrival:
    return Arrival(f"row {seq} of the spill", "", None, packed, 0.0)


def _take_lock(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(LOCK_WITHIN)
    except TimeoutError:
        raise SpillInUse(
            f"the spill {path} is in use by another replica, and each needs one of its own: "
            "name another file with spill=, or stop the process that has this one"
        ) from None


def _is_new(connection: sqlite3.Connection, path: Path) -> bool:
    """Return True if a database is empty; raises StoreError if it is no spill file, or a newer program's."""
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
    """Raise StoreError, with the reason, if the file cannot be used."""
    try:
        yield
    except sqlite3.Error as error:
        raise opening_failed(path, error, CALLED) from error
    except OSError as error:
        raise not_writable(path, error, CALLED) from error


APPEND = "INSERT INTO deliveries (arrival) VALUES (?)"
HEAD = "SELECT seq, arrival FROM deliveries WHERE seq >= ? AND refused IS NULL ORDER BY seq"
REMOVE = "DELETE FROM deliveries WHERE seq = ?"
REFUSE = "UPDATE deliveries SET refused = ? WHERE seq = ?"
PING = f"PRAGMA user_version = {FORMAT}"

BATCH: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
CLOSE_TIMEOUT: Final = 4.0


class SpilledDelivery(Struct, frozen=True):
    """Hold a delivery that waits; `arrival` is None if this program cannot decode it."""

    seq: int
    arrival: Arrival | None


class SpillFile:
    """Keep deliveries in a SQLite file that one process at a time has open; `length` is how many wait in it.

    Raises ConfigError if the URL names no file. Methods raise StoreUnavailable if the disk does not accept the write.
    """

    def __init__(self, url: str) -> None:
        self.path = path_of(url, CALLED)
        self.length = 0
        # How often the head was read, and how many have been appended since.
        self._reads = self._appended_since = 0
        # What the database has, although a full disk keeps it here.
        self._gone: set[int] = set()
        # What follows is the writer's thread's. The number below which all is so, or refused.
        self._first = 0
        # A journal that is cut short takes numbers along: the highest number that was given out, and those that stand
        # for another delivery since the head was read.
        self._highest = 0
        self._again: set[int] = set()
        self._writer: Writer | None = None

    async def open(self) -> None:
        """Open the file, created if there is none; deliveries that the database refused wait again.

        Raises StoreError if the file cannot be used, and SpillInUse if another process has it open.
        """
        with contextlib.ExitStack() as undo, shortage_in_words(self.path, CALLED):
            opened = await open_in_thread(_close_spill, open_spill, self.path)
            undo.callback(_close_spill, opened)
            database, turn, self.length = opened
            self._identity = Identity(self.path)
            self._writer = Writer(database, turn, lambda: None, StoreErrors(), CALLED)
            undo.pop_all()

    async def close(self) -> None:
        """Finish the writes submitted so far, and close the file."""
        if self._writer is not None:
            await self.remove(())
            await self._writer.close(CLOSE_TIMEOUT)

    def append(self, arrival: Arrival) -> "asyncio.Future[None]":
        """Add a delivery at the end; the future is done once it is on disk."""

        def work(connection: sqlite3.Connection) -> None:
            self._identity.check()
            self._note(connection.execute(APPEND, (msgpack.encode(arrival),)).lastrowid or 0)

        # Counted from now on: no later delivery may overtake one that is being written.
        appended = self._opened.submit(work)
        self.length += 1
        self._appended_since += 1
        appended.add_done_callback(partial(self._appended, self._reads))
        return appended

    async def head(self) -> list[SpilledDelivery]:
        """Return the oldest deliveries, after all appends so far: at most BATCH of them, or BATCH_BYTES."""
        self._reads += 1
        self._appended_since = 0
        found: list[SpilledDelivery] = await self._opened.submit(self._read_head)
        if not found:
            # A failed commit may be there after all, and rows are lost with a journal that was cut short: a wait for
            # a wrong length would never end.
            self.length = self._appended_since
        return found

    def _note(self, number: int) -> None:
        if number <= self._highest:
            self._again.add(number)
        self._highest = max(self._highest, number)
        self._first = min(self._first, number)

    def _read_head(self, connection: sqlite3.Connection) -> list[SpilledDelivery]:
        self._gone.difference_update(self._again)
        self._again.clear()
        found = _head(connection, self._first, self._gone) or _head(connection, 0, self._gone)
        self._first = found[0].seq if found else 0
        self._highest = max([self._highest, *(row.seq for row in found[-1:])])
        return found

    async def remove(self, seqs: Sequence[int]) -> None:
        """Delete deliveries that the database has; on a full disk, in memory only until there is space again.

        A full disk accepts no deletion either, but must not stop the move to a database that is available again.
        Deliveries that reappear after a crash are duplicates.
        """
        self.length -= len(seqs)
        with contextlib.suppress(StoreUnavailable):
            # Those of before only once there is space for these: to try all each time takes the square of their number.
            await self._delete(seqs)
            while self._gone:
                await self._delete([self._gone.pop() for _ in range(min(BATCH, len(self._gone)))])

    async def _delete(self, seqs: Sequence[int]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(REMOVE, [(seq,) for seq in seqs if seq not in self._again])

        try:
            if seqs:
                await self._opened.submit(work)
        except BaseException:
            self._gone.update(seqs)
            raise

    async def arrivals(self) -> list[Arrival]:
        """Return all deliveries in the file, as `read_arrivals` does, even while another process has it open."""
        return [arrival for _, arrival in await in_thread(read_arrivals, self.path)]

    async def numbered(self) -> list[tuple[int, Arrival]]:
        """Return the same, with their numbers."""
        return await in_thread(read_arrivals, self.path)

    async def wipe(self, *, rewrite: bool = False) -> str:
        """Remove from the file what has left it, and write it again if it is small or `rewrite` is set.

        Returns in words what may be left, or "". Raises StoreError if the file is not there.
        """
        with _explained(self.path):
            size, left = self.path.stat().st_size, ""
        if rewrite or size <= SMALL:
            try:
                await self._opened.submit(partial(write_again, in_memory=size <= SMALL), alone=True)
            except StoreUnavailable as error:
                # A full disk has no place for it.
                left = f"the spill could not be written again: {error}"
        else:
            left = f"the spill {self.path} has {size // 2**20} MiB and was not written again: do so with --rewrite"
        if not await self._opened.submit(empty_journal, alone=True):
            return f"the journal {self.path}-wal could not be emptied: another program reads the spill"
        return left

    async def set_aside(self, seq: int, reason: str) -> None:
        """Keep a delivery in the file, but do not move it until the file is opened again; `reason` says why."""

        def work(connection: sqlite3.Connection) -> None:
            if seq not in self._again:
                connection.execute(REFUSE, (reason, seq))

        await self._opened.submit(work)
        self.length -= 1

    def ping(self) -> Awaitable[None]:
        """Write something small to find out if the disk accepts it; fails with StoreUnavailable if not."""

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


def _head(connection: sqlite3.Connection, first: int, gone: Set[int]) -> list[SpilledDelivery]:
    found: list[SpilledDelivery] = []
    size = 0
    for seq, packed in connection.execute(HEAD, (first,)):
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
