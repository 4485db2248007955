"""Numbered migrations, which bring a database to this program's schema if it admits this program."""

import sqlite3
import sys
from functools import cache
from importlib import resources
from pathlib import Path

from whereby_trigger.errors import StoreError


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
