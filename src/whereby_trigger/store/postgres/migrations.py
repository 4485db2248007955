"""Numbered migrations, which bring a database to this program's schema under a lock if it admits this program."""

from functools import cache
from importlib import resources

from whereby_trigger.errors import StoreError
from whereby_trigger.store.postgres.connection import Connection, one_row, transaction

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('whereby_trigger migrates', 0))"
WAIT_FOR_OTHERS = "SET LOCAL lock_timeout = '60s'"
WAIT_FOR_TABLES = "SET LOCAL lock_timeout = '2s'"
# Not to_regclass, which uses the server process's cache: after waiting for the lock it would still say no.
THERE = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS classes
JOIN pg_catalog.pg_namespace AS spaces ON spaces.oid = classes.relnamespace
WHERE spaces.nspname = 'whereby_trigger' AND classes.relname = 'version')
"""
VERSION = "SELECT schema, admits FROM whereby_trigger.version"


@cache
def scripts() -> dict[int, str]:
    """Return all migrations by number; read once, since the process may later lose the permission to read them."""
    folder = resources.files("whereby_trigger.store.postgres") / "migrations"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name.partition("_")[0]): file.read_text(encoding="utf-8") for file in sorted(files, key=str)}


SCHEMA = max(scripts())
"""The newest schema this program knows."""


async def check_admitted(connection: Connection, location: str) -> int:
    """Return a database's schema, 0 if it has none; raises StoreError if it admits only newer programs."""
    if not await connection.fetchval(THERE):
        return 0
    schema, admits = await one_row(connection, VERSION)
    if admits > SCHEMA:
        raise StoreError(
            f"the store {location} was migrated by a newer whereby-trigger and admits only programs that know its "
            f"schema {admits}; this one knows {SCHEMA}: upgrade whereby-trigger, or use another database"
        )
    return int(schema)


async def migrate(connection: Connection, location: str) -> list[int]:
    """Apply the migrations that a database lacks, in one transaction; return their numbers.

    Replicas that start at the same time wait for the first, and find nothing left to do.
    """
    if await check_admitted(connection, location) >= SCHEMA:
        return []
    async with transaction(connection):
        await connection.execute(WAIT_FOR_OTHERS)
        await connection.execute(LOCK)
        # Waiting for a whole table makes everyone else wait behind us: not longer than a delivery can.
        await connection.execute(WAIT_FOR_TABLES)
        schema = await check_admitted(connection, location)
        missing = {number: script for number, script in sorted(scripts().items()) if number > schema}
        for number, script in missing.items():
            await connection.execute(script)
            await connection.execute("UPDATE whereby_trigger.version SET schema = $1", number)
    return list(missing)
