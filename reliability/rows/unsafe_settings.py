"""Row 4: a configuration that would not keep what it acknowledged is refused, with the reason."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from reliability.receivers import Receivers
from reliability.row import Result
from reliability.stores import STORE_FILE, PostgresStores, Stores
from tests.support.postgres import database_of

SYNCED = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class Case(Struct, frozen=True):
    """Describe one unsafe configuration: the end of the store's URL, a condition, and the required refusal."""

    url: str
    refusal: str
    condition: str = ""


CASES: Mapping[str, Case] = {
    "synchronous=NORMAL in the URL": Case("{file}?synchronous=NORMAL", "every commit is synced"),
    "journal_mode=MEMORY in the URL": Case("{file}?journal_mode=MEMORY", "every commit is synced"),
    "a store in memory": Case(":memory:", "must outlive the process"),
    "a store in memory, by mode": Case("{file}?mode=memory&cache=shared", "every commit is synced"),
    "a URL without a file": Case("", "names no file"),
    "a file system without shared memory": Case("{file}", "cannot use a write-ahead log", "without shared memory"),
    "a SQLite that does not sync": Case("{file}", "does not sync its commits", "without full sync"),
}


async def run(folder: Path, stores: Stores) -> Result:
    """Start a receiver with each unsafe configuration, which must end and say why; and repair one that is fixable."""
    if isinstance(stores, PostgresStores):
        return await _run_on_postgresql(folder, stores)
    problems = []
    for name, case in CASES.items():
        problems += [f"{name}: {wrong}" for wrong in await why_not_refused(folder, case)]
    problems += await why_not_repaired(folder)
    return Result({"configurations": len(CASES), "refused": len(CASES) - len(problems)}, problems)


async def why_not_refused(folder: Path, case: Case) -> list[str]:
    """Start a receiver with an unsafe configuration; return what is wrong if it does not refuse it."""
    async with Receivers("sqlite:///" + case.url.format(file=folder / STORE_FILE), folder / "emissions") as receivers:
        return await receivers.why_not_refused(case.refusal, *(("--unsafe", case.condition) if case.condition else ()))


async def why_not_repaired(folder: Path) -> list[str]:
    """Start a receiver on a store whose write-ahead log another program has turned off; it must be on again."""
    file = folder / "switched-off.db"
    await asyncio.to_thread(_journal_mode, file, "DELETE")
    async with Receivers(f"sqlite:///{file}", folder / "emissions") as receivers:
        receiver = await receivers.start()
        await receiver.listening()
        mode = await asyncio.to_thread(_journal_mode, file)
    return [] if mode == "wal" else [f"a store in journal mode DELETE is left in journal mode {mode}"]


def _journal_mode(file: Path, mode: str = "") -> str:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (found,) = connection.execute(f"PRAGMA journal_mode{' = ' + mode if mode else ''}").fetchone()
    return str(found)


class DatabaseCase(Struct, frozen=True):
    """Describe one unsafe configuration: the server's settings, SQL to run on it, the end of the URL, the refusal."""

    refusal: str
    settings: Mapping[str, str] = {}
    statement: str = ""
    url: str = ""
    undone_by: str = ""


DATABASE_CASES: Mapping[str, DatabaseCase] = {
    "fsync=off": DatabaseCase("set fsync=on", {"fsync": "off"}),
    "full_page_writes=off": DatabaseCase("set full_page_writes=on", {"full_page_writes": "off"}),
    "synchronous_commit=off": DatabaseCase("synchronous_commit=off", {"synchronous_commit": "off"}),
    "synchronous_commit=off for the role": DatabaseCase(
        "synchronous_commit=off",
        statement="ALTER ROLE postgres SET synchronous_commit = off",
        undone_by="ALTER ROLE postgres RESET synchronous_commit",
    ),
    "synchronous_commit=off for the database": DatabaseCase(
        "synchronous_commit=off", statement="ALTER DATABASE {database} SET synchronous_commit = off"
    ),
    "synchronous_commit=off in the URL": DatabaseCase("synchronous_commit=off", url="?synchronous_commit=off"),
}


async def _run_on_postgresql(folder: Path, stores: PostgresStores) -> Result:
    """Start a receiver with each unsafe configuration, which must end and say why."""
    problems = []
    for name, case in DATABASE_CASES.items():
        problems += [f"{name}: {wrong}" for wrong in await why_database_not_refused(folder, stores, case)]
    return Result({"configurations": len(DATABASE_CASES), "refused": len(DATABASE_CASES) - len(problems)}, problems)


async def why_database_not_refused(folder: Path, stores: PostgresStores, case: DatabaseCase) -> list[str]:
    """Start a receiver with an unsafe configuration; return what is wrong if it does not refuse it."""
    url, server = stores.new(folder), stores.server
    try:
        if case.settings:
            await asyncio.to_thread(server.restart, **case.settings)
        if case.statement:
            await asyncio.to_thread(server.run, case.statement.format(database=database_of(url)))
        async with Receivers(url + case.url, folder / "emissions") as receivers:
            return await receivers.why_not_refused(case.refusal)
    finally:
        if case.settings:
            await asyncio.to_thread(server.restart, **SYNCED)
        if case.undone_by:
            await asyncio.to_thread(server.run, case.undone_by)
