"""Open the database to write, to migrate or to read only, and bring it to this program's schema by migrations."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import resources
from pathlib import Path

from whereby_trigger.errors import StoreError
from whereby_trigger.store.sqlite.connection import (
    BUSY_TIMEOUT,
    connect,
    connect_again,
    create,
    held_locked,
    make_durable,
    not_writable,
    opening_failed,
)
from whereby_trigger.store.sqlite.journal import Database
from whereby_trigger.store.sqlite.lock import LifeLock, Turn

Entered = tuple[Database, sqlite3.Connection, Turn, LifeLock]


def open_to_write(path: Path, replica: str, join: Callable[[sqlite3.Connection], None], synced: bool = True) -> Entered:
    """Create and migrate the database as needed, and register a replica in it by `join`.

    Returns the database to write to, a connection to read with, the lock of writers, and the lock that shows the
    replica alive. Raises StoreError if the database cannot be used. Without `synced`, nothing waits for the disk.
    """
    with ExitStack() as undo, explained(path):
        connection, turn = _writable(path, undo, synced=synced)
        life = LifeLock(path, replica)
        undo.callback(life.close)
        database = _migrated(path, connection, turn, join, synced=synced)
        undo.callback(database.close)
        reading = connect_again(path, readonly=True)
        # The last connection to be closed saves the journal.
        reading.execute(f"PRAGMA synchronous = {'FULL' if synced else 'OFF'}")
        undo.pop_all()
        return database, reading, turn, life


def leave_unused(entered: Entered) -> None:
    """Close what `open_to_write` returned, if nothing was done with it."""
    with ExitStack() as undo:
        for each in entered:
            undo.callback(each.close)


def open_alone(path: Path) -> tuple[Database, Turn]:
    """Create and migrate a database, without a replica in it, and without waiting for the disk: for tests."""
    with ExitStack() as undo, explained(path):
        connection, turn = _writable(path, undo, synced=False)
        database = _migrated(path, connection, turn, lambda connection: None, synced=False)
        undo.pop_all()
        return database, turn


def _migrated(
    path: Path,
    connection: sqlite3.Connection,
    turn: Turn,
    join: Callable[[sqlite3.Connection], None],
    *,
    synced: bool,
) -> Database:
    turn.acquire(BUSY_TIMEOUT)
    make_durable(connection, path, synced=synced)
    migrate(connection, path)
    join(connection)
    database = Database(path, connection, synced=synced)
    turn.release()
    return database


def migrate_file(path: Path) -> list[int]:
    """Create the database if there is none, migrate it, and return the numbers of the migrations applied."""
    with ExitStack() as undo, explained(path):
        connection, turn = _writable(path, undo)
        turn.acquire(BUSY_TIMEOUT)
        make_durable(connection, path)
        return migrate(connection, path)


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a database for reading only; raises StoreError if there is none, or not at this program's schema."""
    with ExitStack() as undo, explained(path):
        connection = connect(path, readonly=True)
        undo.callback(connection.close)
        schema = check_admitted(connection, path)
        if schema < SCHEMA:
            raise StoreError(
                f"the store {path} is at schema {schema}, this program reads {SCHEMA}: "
                "run `whereby-trigger db migrate`, or start the trigger once"
            )
        undo.pop_all()
        return connection


def _writable(path: Path, undo: ExitStack, *, synced: bool = True) -> tuple[sqlite3.Connection, Turn]:
    create(path, synced=synced)
    connection = connect(path)
    undo.callback(connection.close)
    # Checked before anything is changed: the file may belong to another program.
    check_admitted(connection, path)
    turn = Turn(path)
    undo.callback(turn.close)
    return connection, turn


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise StoreError, with the reason, if the database cannot be used."""
    try:
        yield
    except sqlite3.Error as error:
        raise opening_failed(path, error) from error
    except TimeoutError as error:
        raise held_locked(path) from error
    except OSError as error:
        raise not_writable(path, error) from error


@cache
def scripts() -> dict[int, str]:
    """Return all migrations by number; read once, since the process may later lose the permission to read them."""
    folder = resources.files("whereby_trigger.store.sqlite") / "migrations"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name.partition("_")[0]): file.read_text(encoding="utf-8") for file in sorted(files, key=str)}


SCHEMA = max(scripts())
"""The newest schema this program knows."""


def version_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return a database's schema and the oldest program schema that it admits; (0, 0) for an empty file.

    Raises StoreError if the file belongs to another program.
    """
    # In this order: another process may migrate the file between the two.
    if not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        return 0, 0
    columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('version')")}
    is_ours = columns >= {"schema", "admits"}
    row = connection.execute("SELECT schema, admits FROM version").fetchone() if is_ours else None
    if row is None or not all(isinstance(number, int) for number in row):
        raise StoreError("the store's file belongs to another program: name another file with store=")
    return row[0], row[1]


def check_admitted(connection: sqlite3.Connection, path: Path) -> int:
    """Return a database's schema; raises StoreError if it admits only newer programs than this one."""
    schema, admits = version_of(connection)
    if admits > SCHEMA:
        raise StoreError(
            f"the store {path} was written by a newer whereby-trigger and admits only programs that know its schema "
            f"{admits}; this one knows {SCHEMA}: upgrade whereby-trigger, or use another store"
        )
    return schema


def migrate(connection: sqlite3.Connection, path: Path) -> list[int]:
    """Apply the migrations that a database lacks, each in one transaction; return their numbers.

    The caller holds the lock of writers: no other of our processes migrates at the same time.
    """
    schema = check_admitted(connection, path)
    missing = {number: script for number, script in sorted(scripts().items()) if number > schema}
    if sys.version_info >= (3, 12) and missing:
        # Some systems' SQLite allows no change of a CHECK otherwise.
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)
    for number, script in missing.items():
        connection.executescript(f"BEGIN IMMEDIATE; {script}; UPDATE version SET schema = {number}; COMMIT;")  # noqa: S608
    if missing:
        # A journal that somebody cuts short must not take the tables along.
        connection.execute("PRAGMA wal_checkpoint")
    return list(missing)
