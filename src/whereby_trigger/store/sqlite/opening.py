"""Open the database for a replica that writes, for a migration only, or for reading only."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from whereby_trigger.errors import StoreError
from whereby_trigger.store.sqlite import migrations
from whereby_trigger.store.sqlite.connection import (
    BUSY_TIMEOUT,
    connect,
    create,
    held_locked,
    make_durable,
    not_writable,
    opening_failed,
)
from whereby_trigger.store.sqlite.journal import Database
from whereby_trigger.store.sqlite.lock import LifeLock, Turn

Entered = tuple[Database, sqlite3.Connection, Turn, LifeLock]


def open_to_write(path: Path, replica: str, join: Callable[..., None], now: float, synced: bool = True) -> Entered:
    """Create and migrate the database as needed, and register a replica in it by `join`.

    Returns the database to write to, a connection to read with, the lock of writers, and the lock that shows the
    replica alive. Raises StoreError if the database cannot be used. Without `synced`, nothing waits for the disk.
    """
    with ExitStack() as undo, _explained(path):
        connection, turn = _writable(path, undo, synced=synced)
        life = LifeLock(path, replica)
        undo.callback(life.close)
        turn.acquire(BUSY_TIMEOUT)
        make_durable(connection, path, synced=synced)
        migrations.migrate(connection, path)
        join(connection, pid=os.getpid(), now=now)
        database = Database(path, connection, synced=synced)
        undo.callback(database.close)
        turn.release()
        reading = connect(path, readonly=True)
        # The last connection to be closed saves the journal.
        reading.execute(f"PRAGMA synchronous = {'FULL' if synced else 'OFF'}")
        undo.pop_all()
        return database, reading, turn, life


def migrate_file(path: Path) -> list[int]:
    """Create the database if there is none, migrate it, and return the numbers of the migrations applied."""
    with ExitStack() as undo, _explained(path):
        connection, turn = _writable(path, undo)
        turn.acquire(BUSY_TIMEOUT)
        make_durable(connection, path)
        return migrations.migrate(connection, path)


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a database for reading only; raises StoreError if there is none, or not at this program's schema."""
    with ExitStack() as undo, _explained(path):
        connection = connect(path, readonly=True)
        undo.callback(connection.close)
        schema = migrations.check_admitted(connection, path)
        if schema < migrations.SCHEMA:
            raise StoreError(
                f"the store {path} is at schema {schema}, this program reads {migrations.SCHEMA}: "
                "run `whereby-trigger db migrate`, or start the trigger once"
            )
        undo.pop_all()
        return connection


def _writable(path: Path, undo: ExitStack, *, synced: bool = True) -> tuple[sqlite3.Connection, Turn]:
    create(path, synced=synced)
    connection = connect(path)
    undo.callback(connection.close)
    # Checked before anything is changed: the file may belong to another program.
    migrations.check_admitted(connection, path)
    turn = Turn(path)
    undo.callback(turn.close)
    return connection, turn


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise StoreError, with the reason, if the database cannot be used."""
    try:
        yield
    except sqlite3.Error as error:
        raise opening_failed(path, error) from error
    except TimeoutError as error:
        raise held_locked(path) from error
    except OSError as error:
        raise not_writable(path, error) from error
