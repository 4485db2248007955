"""The stores that the rows run on, and how the harness looks into one: through the Store's own verbs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from whereby_trigger.store import Query, Record, State, Store
from whereby_trigger.stores import store_for

DECIDED_WITHIN = 60.0

STORE_FILE = "store.db"
STORES: dict[str, Callable[[Path], str]] = {"sqlite": lambda folder: f"sqlite:///{folder / STORE_FILE}"}
"""By name, how the URL of a new store is made from an empty folder."""


class View:
    """Look into a store that others write to."""

    def __init__(self, store: Store, changed: asyncio.Event) -> None:
        self._store = store
        self._changed = changed

    async def records(self) -> list[Record]:
        """Read every stored webhook, in order of arrival."""
        return list(reversed(await self._store.find(Query())))

    async def until_decided(self) -> None:
        """Wait until nothing is pending; raises TimeoutError."""
        async with asyncio.timeout(DECIDED_WITHIN):
            while await self._store.find(Query(state=State.PENDING, limit=1)):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def viewing(url: str) -> AsyncIterator[View]:
    """Open a store for as long as an `async with` block."""
    store, changed = store_for(url), asyncio.Event()
    await store.open(changed.set)
    try:
        yield View(store, changed)
    finally:
        await store.close()
