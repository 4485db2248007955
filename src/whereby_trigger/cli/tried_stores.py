"""Whether the store and the spill take writes, tried without leaving anything behind."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whereby_trigger.cli.findings import Finding
from whereby_trigger.config import Settings
from whereby_trigger.errors import SpillInUse, UsageError
from whereby_trigger.store import Store
from whereby_trigger.store.spill import Content, Spool, look_into
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.stores import spool_for, store_for

if TYPE_CHECKING:
    from whereby_trigger.store.postgres import PostgresStore


def store_findings(settings: Settings) -> Iterator[Finding]:
    """Try the store that the settings name."""
    try:
        store = store_for(settings.store)
        if isinstance(store, SqliteStore):
            yield Finding("store", True, _try_file(store))
        else:
            yield from _look_at(store)
    except UsageError as error:
        yield Finding("store", False, str(error))


def _try_file(store: SqliteStore) -> str:
    """Try whether a file takes writes; one that is not there yet is not created, but tried in a folder beside it."""
    if _fits(store.path, lambda url: _write_to(SqliteStore(url))):
        return f"{store.location} is not there yet; its folder takes one"
    asyncio.run(_write_to(store))
    return f"{store.location} opens and takes writes"


def _look_at(store: "PostgresStore") -> Iterator[Finding]:
    remarks = asyncio.run(store.look())
    yield Finding("store", True, f"{store.location} answers")
    for remark in remarks:
        yield Finding(f"store {remark.about}", remark.problem is None, remark.words, remark.warns)


def _fits(path: Path, write_to: Callable[[str], Coroutine[Any, Any, None]]) -> bool:
    """Tell whether a file is not there yet, and its folder takes one like it."""
    if path.exists():
        return False
    try:
        with TemporaryDirectory(prefix=f"{path.name}-check-", dir=path.parent) as folder:
            asyncio.run(write_to(f"sqlite:///{quote(folder)}/check.db"))
    except OSError:
        return False
    return True


async def _write_to(store: Store) -> None:
    await store.open(lambda: None)
    try:
        await store.ping(time.time())
    finally:
        await store.close()


def spill_findings(settings: Settings) -> Iterator[Finding]:
    """Try the spill that the settings name, where they name one."""
    try:
        spool = spool_for(settings.spill, settings.store)
        if spool is not None:
            yield _try_spool(spool)
    except UsageError as error:
        yield Finding("spill", False, str(error))


def _try_spool(spool: Spool) -> Finding:
    """Try whether a spool takes writes, as with a store, and tell what waits in it."""
    if _fits(spool.path, lambda url: _spool_to(Spool(url))):
        return Finding("spill", True, f"{spool.path} is not there yet; its folder takes one")
    # Looked into before it is opened for writing, which lets what was refused wait again.
    content = look_into(spool.path) if spool.path.exists() else Content(0, 0)
    try:
        asyncio.run(_spool_to(spool))
        taken = "takes writes"
    except SpillInUse:
        taken = "is in use by a running trigger"
    refused = f", that the database refused: {content.refused}" if content.refused else ""
    detail = f"{spool.path} {taken}; deliveries that wait in it: {content.waiting}{refused}"
    return Finding("spill", not content.refused, detail)


async def _spool_to(spool: Spool) -> None:
    await spool.open()
    try:
        await spool.ping()
    finally:
        await spool.close()
