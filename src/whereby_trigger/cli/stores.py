"""The store that a command reads or changes, opened for as long as the command needs it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from whereby_trigger.cli.app import resolved
from whereby_trigger.cli.findings import Finding
from whereby_trigger.config import Settings
from whereby_trigger.errors import SpillInUse, UsageError
from whereby_trigger.store import Store
from whereby_trigger.store.factory import spill_file_for, store_for
from whereby_trigger.store.spill import SpillContent, SpillFile, read_content
from whereby_trigger.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from whereby_trigger.store.postgres import PostgresStore


def settings_with_store(app: str | None, store: str | None) -> Settings:
    """Resolve the settings of APP, or of the environment, with the store that the command line names."""
    return resolved(app, {"store": store}, needed=("store",)).settings


@asynccontextmanager
async def looked_into(url: str) -> AsyncIterator[Store]:
    """Open a store to read it; raises StoreError where there is none."""
    store = store_for(url)
    await store.open_readonly()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def changed(url: str) -> AsyncIterator[Store]:
    """Open a store to change what is in it; raises StoreError where there is none."""
    async with looked_into(url):
        pass
    store = store_for(url)
    await store.open(lambda: None)
    try:
        yield store
    finally:
        await store.close()


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
        spill_file = spill_file_for(settings.spill, settings.store)
        if spill_file is not None:
            yield _try_spool(spill_file)
    except UsageError as error:
        yield Finding("spill", False, str(error))


def _try_spool(spill_file: SpillFile) -> Finding:
    """Try whether a spool takes writes, as with a store, and tell what waits in it."""
    if _fits(spill_file.path, lambda url: _spool_to(SpillFile(url))):
        return Finding("spill", True, f"{spill_file.path} is not there yet; its folder takes one")
    # Looked into before it is opened for writing, which lets what was refused wait again.
    content = read_content(spill_file.path) if spill_file.path.exists() else SpillContent(0, 0)
    try:
        asyncio.run(_spool_to(spill_file))
        taken = "takes writes"
    except SpillInUse:
        taken = "is in use by a running trigger"
    refused = f", that the database refused: {content.refused}" if content.refused else ""
    detail = f"{spill_file.path} {taken}; deliveries that wait in it: {content.waiting}{refused}"
    return Finding("spill", not content.refused, detail)


async def _spool_to(spill_file: SpillFile) -> None:
    await spill_file.open()
    try:
        await spill_file.ping()
    finally:
        await spill_file.close()
