"""How the spool's file is opened: by the one process that fills and empties it, or only to be looked into."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from msgspec import Struct

from whereby_trigger.errors import SpillInUse, StoreError
from whereby_trigger.store.sqlite import file
from whereby_trigger.store.sqlite.journal import Database
from whereby_trigger.store.sqlite.lock import FileLock

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


class Content(Struct, frozen=True):
    """Tell how many deliveries are in a spool: those that wait, and those that the database refused."""

    waiting: int
    refused: int


class Held:
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


def enter(path: Path) -> tuple[Database, Held, int]:
    """Open a spool, created if there is none; return what it is written with, and how many deliveries wait in it.

    Raises StoreError where the file cannot be used, SpillInUse where another process has it open.
    """
    with ExitStack() as undo, _in_words(path):
        file.create(path, CALLED)
        lock = FileLock(path.with_name(path.name + "-lock"))
        undo.callback(lock.close)
        _acquire(lock, path)
        connection = file.connect(path, called=CALLED)
        undo.callback(connection.close)
        is_new = _is_new(connection, path)
        file.make_durable(connection, path, CALLED)
        if is_new:
            connection.executescript(CREATE)
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
        return database, Held(lock), waiting


def look_into(path: Path) -> Content:
    """Count what is in a spool, beside a process that has it open if there is one.

    Raises StoreError where there is no spool.
    """
    with ExitStack() as undo, _in_words(path):
        connection = file.connect(path, readonly=True, called=CALLED)
        undo.callback(connection.close)
        return Content(0, 0) if _is_new(connection, path) else _count(connection)


def _acquire(lock: FileLock, path: Path) -> None:
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


def _count(connection: sqlite3.Connection) -> Content:
    total, refused = connection.execute(COUNT).fetchone()
    return Content(total - refused, refused)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Say why the file cannot be used."""
    try:
        yield
    except sqlite3.Error as error:
        raise file.opening_failed(path, error, CALLED) from error
    except OSError as error:
        raise file.not_writable(path, error, CALLED) from error
