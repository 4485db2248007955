"""Make the store that a URL names and the spill file before it, or reuse an open store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.config import STORE_FILE, Settings, masked, postgres_services, read_text
from whereby_trigger.errors import ConfigError
from whereby_trigger.store import Store
from whereby_trigger.store.spill_file import SpillFile
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.text import read_file

if TYPE_CHECKING:
    from whereby_trigger.store.postgres import PostgresStore


class InUse(Struct, frozen=True):
    """Hold an open store, the settings that name it, the event loop it belongs to, and the clock it goes by."""

    store: Store
    settings: Settings
    loop: asyncio.AbstractEventLoop
    clock: Clock = MACHINE


@asynccontextmanager
async def usable(in_use: InUse | None, settings: Settings, *, reading: bool) -> AsyncIterator[Store]:
    """Yield the store in use if this is its event loop; otherwise open the one that the settings name.

    With `reading` it is opened for reading only. Raises StoreError if it cannot be opened.
    """
    if in_use is not None and in_use.loop is asyncio.get_running_loop():
        yield in_use.store
        return
    store = store_for(settings.store, settings.lease_ttl, settings.store_file)
    await (store.open_readonly() if reading else store.open())
    try:
        yield store
    finally:
        await store.close()


def store_for(url: str, lease_ttl: float = 30.0, file: str | None = None) -> "SqliteStore | PostgresStore":
    """Return the store that a URL names, not opened yet; `lease_ttl` is in seconds.

    With the `file` that the URL is from, each new connection to PostgreSQL uses the user and password in it by then.
    Raises ConfigError if the URL is not a store's, or the driver is not installed.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteStore(url, lease_ttl)
    if scheme in ("postgresql", "postgres"):
        return _postgres(url, lease_ttl, file)
    raise ConfigError(
        f"store {masked('store', url)!r} is of no known kind: write sqlite:///file.db or postgresql://user@host/database"
    )


def spill_file_for(spill: str | None, store: str) -> SpillFile | None:
    """Return the spill file, not opened yet, in which deliveries wait while `store` is unavailable; None without one.

    Raises ConfigError if the spill's URL names no file, or the store is a file too.
    """
    if spill is None:
        return None
    if store.startswith("sqlite:"):
        raise ConfigError(
            f"spill {spill!r} is for a database that may be unavailable, but store {store!r} is a file on this "
            "machine too: leave spill out, or set it to off"
        )
    return SpillFile(spill)


def _postgres(url: str, lease_ttl: float, file: str | None) -> "PostgresStore":
    # The driver is an extra, and a program on SQLite should not wait for its import.
    try:
        from whereby_trigger.store.postgres import PostgresStore, Services
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigError("a store on PostgreSQL needs its driver: pip install 'whereby-trigger[postgres]'") from None
    services = Services(*postgres_services())
    return PostgresStore(url, lease_ttl, services, None if file is None else partial(_url_in, file))


def _url_in(file: str) -> str:
    return read_text(STORE_FILE, read_file(STORE_FILE, file))
