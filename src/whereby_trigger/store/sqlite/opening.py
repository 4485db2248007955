"""How the database is opened: by a replica that will write, for a migration alone, or only to be looked into."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from whereby_trigger.errors import StoreError
from whereby_trigger.store.sqlite import file, lease, migrate
from whereby_trigger.store.sqlite.lock import FileLock, LifeLock


def enter(path: Path, replica: str, ttl: float) -> tuple[sqlite3.Connection, FileLock, LifeLock]:
    """Create and migrate the database as needed, and enter a replica; raises StoreError where that cannot be."""
    with ExitStack() as undo:
        connection, turn = _writable(path, undo)
        life = LifeLock(path, replica)
        undo.callback(life.close)
        with _taken(turn, path):
            migrate.migrate(connection, path)
            lease.join(connection, replica, os.getpid(), time.time(), ttl)
        undo.pop_all()
        return connection, turn, life


def bring_up(path: Path) -> list[int]:
    """Create the database where there is none, migrate it, and give the numbers of the migrations applied."""
    with ExitStack() as undo:
        connection, turn = _writable(path, undo)
        with _taken(turn, path):
            return migrate.migrate(connection, path)


def look_into(path: Path) -> sqlite3.Connection:
    """Open a database to read it only; raises StoreError where there is none, or not at this program's schema."""
    connection = file.connect(path, readonly=True)
    try:
        schema = migrate.check_admitted(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise file.opening_failed(path, error) from error
        raise
    if schema < migrate.SCHEMA:
        connection.close()
        raise StoreError(
            f"the store {path} is at schema {schema}, this program reads {migrate.SCHEMA}: "
            "run `whereby-trigger db migrate`, or start the trigger once"
        )
    return connection


def _writable(path: Path, undo: ExitStack) -> tuple[sqlite3.Connection, FileLock]:
    file.create(path)
    turn = FileLock(path.with_name(path.name + "-lock"))
    undo.callback(turn.close)
    connection = file.connect(path)
    undo.callback(connection.close)
    return connection, turn


@contextmanager
def _taken(turn: FileLock, path: Path) -> Iterator[None]:
    """Hold the writers' turn, and say in words why the database cannot be used meanwhile."""
    try:
        turn.acquire(file.BUSY_TIMEOUT)
        yield
        turn.release()
    except sqlite3.Error as error:
        raise file.opening_failed(path, error) from error
    except TimeoutError as error:
        raise file.held_locked(path) from error
