"""The store that a command reads or changes, opened for as long as the command needs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whereby_trigger.cli.app import resolved
from whereby_trigger.config import Settings
from whereby_trigger.store import Store
from whereby_trigger.stores import store_for


def settings_with_store(app: str | None, store: str | None) -> Settings:
    """Resolve the settings of APP, or of the environment, with the store that the command line names."""
    return resolved(app, {"store": store}, needed=("store",)).settings


@asynccontextmanager
async def looked_into(url: str) -> AsyncIterator[Store]:
    """Open a store to read it; raises StoreError where there is none."""
    store = store_for(url)
    await store.peek()
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
