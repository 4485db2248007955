"""Row 4 on PostgreSQL: a server, a role, a database or a URL that says not to wait for the disk."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from reliability.process import Receivers
from reliability.result import Result
from reliability.stores import PostgresStores
from tests.support.postgres import database_of

SYNCED = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


class Case(Struct, frozen=True):
    """Describe one unsafe configuration: the server's settings, what is said to it, the end of the URL, the refusal."""

    refusal: str
    settings: Mapping[str, str] = {}
    statement: str = ""
    url: str = ""
    undone_by: str = ""


CASES: Mapping[str, Case] = {
    "fsync=off": Case("set fsync=on", {"fsync": "off"}),
    "full_page_writes=off": Case("set full_page_writes=on", {"full_page_writes": "off"}),
    "synchronous_commit=off": Case("synchronous_commit=off", {"synchronous_commit": "off"}),
    "synchronous_commit=off for the role": Case(
        "synchronous_commit=off",
        statement="ALTER ROLE postgres SET synchronous_commit = off",
        undone_by="ALTER ROLE postgres RESET synchronous_commit",
    ),
    "synchronous_commit=off for the database": Case(
        "synchronous_commit=off", statement="ALTER DATABASE {database} SET synchronous_commit = off"
    ),
    "synchronous_commit=off in the URL": Case("synchronous_commit=off", url="?synchronous_commit=off"),
}


async def run(folder: Path, stores: PostgresStores) -> Result:
    """Start a receiver with each unsafe configuration, which must end and say why."""
    problems = []
    for name, case in CASES.items():
        problems += [f"{name}: {wrong}" for wrong in await why_not_refused(folder, stores, case)]
    return Result({"configurations": len(CASES), "refused": len(CASES) - len(problems)}, problems)


async def why_not_refused(folder: Path, stores: PostgresStores, case: Case) -> list[str]:
    """Start a receiver with an unsafe configuration; say what is wrong if it does not refuse it."""
    url, server = stores.new(folder), stores.server
    receivers = Receivers(url + case.url, folder / "emissions")
    try:
        if case.settings:
            await asyncio.to_thread(server.restart, **case.settings)
        if case.statement:
            await asyncio.to_thread(server.run, case.statement.format(database=database_of(url)))
        return await receivers.why_not_refused(case.refusal)
    finally:
        await receivers.close()
        if case.settings:
            await asyncio.to_thread(server.restart, **SYNCED)
        if case.undone_by:
            await asyncio.to_thread(server.run, case.undone_by)
