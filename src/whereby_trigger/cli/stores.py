"""Open the store that a command reads or changes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whereby_trigger.cli.app import resolved
from whereby_trigger.config import Settings
from whereby_trigger.store import Store
from whereby_trigger.store.factory import store_for


def settings_with_store(app: str | None, store: str | None) -> Settings:
    """Resolve the settings of APP, or of the environment, with the store that the command line names."""
    return resolved(app, {"store": store}, needed=("store",)).settings


@asynccontextmanager
async def store_to_read(url: str) -> AsyncIterator[Store]:
    """Open a store to read it; raises StoreError if there is none."""
    store = store_for(url)
    await store.open_readonly()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def store_to_change(url: str) -> AsyncIterator[Store]:
    """Open a store to change it; raises StoreError if there is none."""
    # Opening to write would create a missing store.
    async with store_to_read(url):
        pass
    store = store_for(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
