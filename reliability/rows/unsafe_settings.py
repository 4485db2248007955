"""Row 4: a configuration that would not keep what it acknowledged is refused, with the reason."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from reliability.process import Receivers
from reliability.result import Result
from reliability.rows import unsafe_databases
from reliability.stores import STORE_FILE, PostgresStores, Stores


class Case(Struct, frozen=True):
    """Describe one unsafe configuration: the end of the store's URL, a condition, and what the refusal must say."""

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
    """Start a receiver with each unsafe configuration, which must end and say why; and repair one that can be."""
    if isinstance(stores, PostgresStores):
        return await unsafe_databases.run(folder, stores)
    problems = []
    for name, case in CASES.items():
        problems += [f"{name}: {wrong}" for wrong in await why_not_refused(folder, case)]
    problems += await why_not_repaired(folder)
    return Result({"configurations": len(CASES), "refused": len(CASES) - len(problems)}, problems)


async def why_not_refused(folder: Path, case: Case) -> list[str]:
    """Start a receiver with an unsafe configuration; say what is wrong if it does not refuse it."""
    receivers = Receivers("sqlite:///" + case.url.format(file=folder / STORE_FILE), folder / "emissions")
    try:
        return await receivers.why_not_refused(case.refusal, *(("--unsafe", case.condition) if case.condition else ()))
    finally:
        await receivers.close()


async def why_not_repaired(folder: Path) -> list[str]:
    """Start a receiver on a store whose write-ahead log another program has switched off; it must be on again."""
    file = folder / "switched-off.db"
    await asyncio.to_thread(_journal_mode, file, "DELETE")
    receivers = Receivers(f"sqlite:///{file}", folder / "emissions")
    try:
        receiver = await receivers.start()
        await receiver.listening()
        mode = await asyncio.to_thread(_journal_mode, file)
    finally:
        await receivers.close()
    return [] if mode == "wal" else [f"a store in journal mode DELETE is left in journal mode {mode}"]


def _journal_mode(file: Path, mode: str = "") -> str:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (found,) = connection.execute(f"PRAGMA journal_mode{' = ' + mode if mode else ''}").fetchone()
    return str(found)
