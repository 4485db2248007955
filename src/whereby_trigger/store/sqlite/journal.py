"""The journal beside a database, `-wal`, and its index, `-shm`: protected from removal, and repaired after one."""

import errno
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.loggers import own_logger
from whereby_trigger.store.sqlite.connection import Identity, connect, make_durable

logger = own_logger("whereby_trigger.store")

LARGE: Final = 256 * 1024 * 1024
"""Size of a journal, in bytes, from which we warn: something keeps it from being emptied."""

READERS: Final = (0x40000002, 510)
"""First byte and length that SQLite locks in an open database. Source: SQLite's os.h, SHARED_FIRST, SHARED_SIZE."""

INDEX_IN_USE: Final = (128, 1)
"""The same in the journal's index. Source: SQLite's os_unix.c, UNIX_SHM_DMS."""

INDEX_HEADER: Final = 48
"""Bytes of the index's header, which is stored twice. Source: SQLite docs, WAL-mode File Format, 2.1."""

LOG_HEADER, FRAME_HEADER, LOG_BEGINS = 32, 24, b"\x37\x7f\x06"
"""Bytes before the log's frames and before each page in it, and a log's first bytes. Source: the same, section 4."""

SAVED: Final = "all its content is saved"
SAVED_ELSEWHERE: Final = "another process has saved its content"
LOST: Final = "what was only in it is lost"
"""What has become of a journal's content."""

if sys.platform == "linux":
    import fcntl
    import struct

    def _lock(descriptor: int, kind: int, span: tuple[int, int]) -> None:
        # Some file systems have no such locks. Then only the checks around each commit protect the journal.
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", kind, os.SEEK_SET, *span, 0))

    def _share(descriptor: int, span: tuple[int, int]) -> None:
        _lock(descriptor, fcntl.F_RDLCK, span)

    def _release(descriptor: int) -> None:
        _lock(descriptor, fcntl.F_UNLCK, (0, 0))

else:

    def _share(descriptor: int, span: tuple[int, int]) -> None:
        pass

    def _release(descriptor: int) -> None:
        pass


class Pin(Struct, eq=False):
    """Keep a file marked as in use for SQLite in other processes.

    SQLite's own marks are POSIX locks: a process loses all of them on a file when it closes any descriptor of it, for
    example after copying the file. The next process to close the database then believes it is the last one, and
    removes the journal that is in use. A lock of an open file description is not lost this way.
    """

    descriptor: int
    users: int = 0

    @property
    def stat(self) -> os.stat_result:
        return os.fstat(self.descriptor)


# Shared by all stores of the process: closing a descriptor would release the other stores' POSIX locks.
_pins: dict[tuple[int, int], Pin] = {}
_pinning = threading.Lock()


def pin(path: Path, span: tuple[int, int]) -> Pin:
    with _pinning:
        there = os.stat(path)
        pin = _pins.get((there.st_dev, there.st_ino))
        if pin is None:
            pin = Pin(os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0)))
            _pins[pin.stat.st_dev, pin.stat.st_ino] = pin
        pin.users += 1
        _share(pin.descriptor, span)
        return pin


def unpin(pins: list[Pin], close: Callable[[], None]) -> None:
    """Release the locks, then close a connection, which may remove the journal now, then close the descriptors."""
    with _pinning:
        for pin in pins:
            pin.users -= 1
            if not pin.users:
                _release(pin.descriptor)
    try:
        close()
    finally:
        with _pinning:
            for key, pin in list(_pins.items()):
                if pin in pins and not pin.users:
                    del _pins[key]
                    os.close(pin.descriptor)


def _forget_pins() -> None:
    # A forked child that lives on would keep its dead parent's locks.
    global _pinning
    _pinning = threading.Lock()
    for pin in _pins.values():
        os.close(pin.descriptor)
    _pins.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pins)


class Journal:
    """Remember the files that an open connection writes to, and compare them with the files at their paths.

    Raises OSError if the connection uses other files.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.log_path = path.with_name(f"{path.name}-wal")
        self.index_path = path.with_name(f"{path.name}-shm")
        # SQLite opens them at the first read.
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        there = {_identity(os.stat(beside)): beside for beside in (self.log_path, self.index_path)}
        for beside in _not_open_here(there):
            raise OSError(errno.EBUSY, f"{beside} is not the one that this process has open")
        with ExitStack() as undo:
            self._log = os.open(self.log_path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            undo.callback(os.close, self._log)
            self._pins = [pin(path, READERS)]
            undo.callback(unpin, self._pins, lambda: None)
            self._pins.append(pin(self.index_path, INDEX_IN_USE))
            undo.pop_all()
        self._log_opened, self._index_opened = os.fstat(self._log), self._pins[1].stat
        # Strings, not paths: these are looked up twice for each commit.
        self._log_at, self._index_at = str(self.log_path), str(self.index_path)

    @property
    def size(self) -> int:
        """The size in bytes of the log that is in use."""
        return os.fstat(self._log).st_size

    @property
    def database_size(self) -> int:
        """The size in bytes of the database itself."""
        return os.lseek(self._pins[0].descriptor, 0, os.SEEK_END)

    def database_says(self) -> int:
        """Return the database's size in bytes by its first page. Source: SQLite docs, Database File Format, 1.3."""
        if not hasattr(os, "pread"):
            return 0
        first = os.pread(self._pins[0].descriptor, 32, 0)
        if len(first) < 32:
            return 32
        page, pages = int.from_bytes(first[16:18]), int.from_bytes(first[28:32])
        return pages * (65536 if page == 1 else page)

    def has_log(self) -> bool | None:
        """Return True if the log in use is the one at its path, False if another is there, None if none is."""
        return _is_there(self._log_at, self._log_opened)

    def has_index(self) -> bool | None:
        """Return True if the index in use is the one at its path, False if another is there, None if none is."""
        return _is_there(self._index_at, self._index_opened)

    def is_whole(self) -> bool:
        """Return False if somebody cut the log short: its beginning is gone, or it is shorter than its index says."""
        if sys.platform != "linux":
            # Elsewhere a read of the index may not show what SQLite has written to its mapping.
            return True
        header = os.pread(self._pins[1].descriptor, 2 * INDEX_HEADER, 0)
        if len(header) < 2 * INDEX_HEADER or header[:INDEX_HEADER] != header[INDEX_HEADER:]:
            # A process is writing it, or it was cut short as well; then SQLite's next access to it ends the process.
            return True
        page, frames = struct.unpack_from("=HI", header, 14)
        if not frames:
            return True
        ends = LOG_HEADER + frames * (FRAME_HEADER + (65536 if page == 1 else page))
        # Its last byte tells of its size for a third of what `fstat` takes, twice for each commit.
        return bool(os.pread(self._log, 1, ends - 1)) and os.pread(self._log, len(LOG_BEGINS), 0) == LOG_BEGINS

    def close(self, connection: sqlite3.Connection, *, keep: bool) -> None:
        """Close the connection; with `keep` the files stay even if this process is the last to use them."""
        if keep:
            connection.close()
        unpin(self._pins, connection.close)
        os.close(self._log)


class Database:
    """Hold the writing connection, and guarantee that its commits are in the files at their paths.

    If the log or its index was removed or replaced, their content is saved into the database and the connection is
    reopened; if the log was cut short, it is only reopened. All methods but `is_intact` and `close` need the lock of
    writers.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, called: str = "store", *, synced: bool = True
    ) -> None:
        self._synced = synced
        self._path = path
        self._called = called
        self._identity = Identity(path)
        self._connection: sqlite3.Connection | None = connection
        self._journal = Journal(path, connection)
        self._told_size = LARGE
        self._size, self._is_cut = 0, False
        self.readers_out: Callable[[], AbstractContextManager[None]] = nullcontext
        """Closes this process's other connections to the database, and keeps them closed during a `with` block.

        A process shares one index among its connections: one that stays open would keep the others at the old index.
        """

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection to write with; raises OSError while there is none."""
        if self._connection is None:
            raise OSError(errno.EBUSY, f"the {self._called} {self._path} could not be reopened")
        return self._connection

    def is_intact(self) -> bool:
        """Return False if the log or its index is no longer at its path, or the log was cut short."""
        journal = self._journal
        return bool(self._connection is not None and journal.has_log() and journal.has_index() and journal.is_whole())

    def prepare(self) -> sqlite3.Connection:
        """Return the connection for a transaction; raises OSError or sqlite3.Error if it cannot be repaired."""
        self._check_size()
        # If the database itself is gone there is nothing to repair, but the open files can still be read.
        if not self.is_intact() and self._identity.holds():
            self._repair()
        return self.connection

    def settle(self) -> None:
        """Raise OSError or sqlite3.Error unless the last commit is in the files at their paths."""
        self._identity.check()
        self._check_size()
        if not self.is_intact() and not self._repair():
            raise OSError(errno.EIO, f"the journal {self._journal.log_path} was replaced during a commit")

    def _check_size(self) -> None:
        """Raise OSError, from then on, if the database is smaller than before and than its first page says.

        A VACUUM changes both. What was cut off is lost, and later writes would be useless.
        """
        if self._connection is None:
            return
        size = self._journal.database_size
        self._is_cut = self._is_cut or (size < self._size and size < self._journal.database_says())
        if self._is_cut:
            raise OSError(
                errno.EIO,
                f"the {self._called} {self._path} was cut short while it was in use, and cannot be repaired: "
                "stop the trigger, put a backup in its place, and start again",
            )
        self._size = size

    def warn_if_large(self) -> None:
        """Warn that the journal grows, once each time its size has doubled."""
        if self._connection is None:
            return
        size = self._journal.size
        if size < LARGE:
            self._told_size = LARGE
        elif size >= self._told_size:
            self._told_size = 2 * size
            logger.warning(
                "the %s's journal %s has grown to %d MiB: a program that reads the file and does not finish keeps it "
                "from being emptied; close what has the file open (a database browser, a backup, a shell)",
                self._called,
                self._journal.log_path,
                size // (1024 * 1024),
            )

    def close(self) -> None:
        if self._connection is not None:
            self._journal.close(self._connection, keep=False)

    def _repair(self) -> bool:
        """Switch to the files at their paths; return True if all commits were saved into the database.

        Raises OSError or sqlite3.Error if that is not possible now.
        """
        with self.readers_out():
            if self._connection is None:
                self._open()
                return False
            outcome = self._save(self._connection)
            connection, self._connection = self._connection, None
            self._journal.close(connection, keep=True)
            logger.log(
                logging.ERROR if outcome is LOST else logging.WARNING,
                "the journal %s of the %s was removed, replaced or cut short while it was in use: %s; "
                "do not touch the files beside it while a trigger runs",
                self._journal.log_path,
                self._called,
                outcome,
            )
            self._open()
        return outcome is SAVED

    def _save(self, connection: sqlite3.Connection) -> str:
        """Copy the log's content into the database, unless another process has done so; return the outcome."""
        journal = self._journal
        log, index = journal.has_log(), journal.has_index()
        if index is not False and not journal.is_whole():
            return LOST
        if not journal.size:
            # Another replica came first: it has saved everything, and emptied the log.
            return SAVED_ELSEWHERE
        if index is False:
            if log:
                # Another process has made a new index from the same log, with all of its content.
                return SAVED_ELSEWHERE
            # The pages of both logs may differ by now, and must not be mixed.
            raise FileExistsError(
                errno.EEXIST,
                f"the journal {journal.log_path} was removed, and another program has begun a new one: end every other "
                f"program that has the {self._called} open, and move {journal.log_path} and {journal.index_path} away",
            )
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise OSError(
                errno.EBUSY,
                f"the journal {journal.log_path} was removed, and a program that reads it keeps us from saving it",
            )
        if log is False:
            # The database has everything now; SQLite would treat a file left in the log's place as newer.
            journal.log_path.unlink(missing_ok=True)
        return SAVED

    def _open(self) -> None:
        try:
            with ExitStack() as undo:
                connection = connect(self._path, called=self._called)
                undo.callback(connection.close)
                make_durable(connection, self._path, self._called, synced=self._synced)
                journal = Journal(self._path, connection)
                undo.callback(journal.close, connection, keep=True)
                if not journal.is_whole():
                    # A new index is made from what is left, but only once nobody has the old one open.
                    raise OSError(
                        errno.EBUSY,
                        f"the journal {journal.log_path} was cut short, and another program keeps its index open: "
                        f"end every other program that has the {self._called} open",
                    )
                undo.pop_all()
                self._journal = journal
        except StoreError as error:
            raise OSError(errno.EIO, str(error)) from error
        self._connection = connection


def _is_there(path: str, opened: os.stat_result) -> bool | None:
    try:
        return os.path.samestat(os.stat(path), opened)
    except FileNotFoundError:
        return None


def _identity(there: os.stat_result) -> tuple[int, int]:
    return there.st_dev, there.st_ino


def _not_open_here(there: Mapping[tuple[int, int], Path]) -> Iterable[Path]:
    """Return the files that no descriptor of this process refers to; none if the system does not show descriptors."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return ()
    left = dict(there)
    # Those that were opened last are mostly the last.
    for name in reversed(names):
        if not left:
            break
        with suppress(OSError):
            left.pop(_identity(os.stat(f"/proc/self/fd/{name}")), None)
    return left.values()
