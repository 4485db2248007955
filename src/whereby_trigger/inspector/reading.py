"""The store as the inspector reads it: opened for reading only, shared by all pages, closed when nobody looks.

It is a connection of its own even beside a running trigger, whose own reads then never wait for a page's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from whereby_trigger.store import Store

IDLE_FOR = 5.0
"""Seconds after the last read until the store is closed."""


class _Opened:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Store] = self.loop.create_future()
        # Who gave up waiting does not ask how it went.
        self.ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self.users = 0
        self.changed = asyncio.Event()
        self.closing = False


class SharedStore:
    """Open a store for reading when the first page asks for it, and close it when none has for some seconds."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._opened: _Opened | None = None
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Store]:
        """Yield the open store. Raises StoreError if there is none, or it is unavailable."""
        opened = self._opened
        if opened is None or opened.loop is not asyncio.get_running_loop():
            opened = self._opened = _Opened()
            self._keeper = asyncio.create_task(self._keep(opened), name="whereby-trigger-inspector-store")
        opened.users += 1
        opened.changed.set()
        try:
            yield await asyncio.shield(opened.ready)
        finally:
            opened.users -= 1
            opened.changed.set()

    async def close(self) -> None:
        """Close the store once no page reads it."""
        opened, keeper = self._opened, self._keeper
        if opened is not None and keeper is not None and opened.loop is asyncio.get_running_loop():
            opened.closing = True
            opened.changed.set()
            await asyncio.wait({keeper})

    async def _keep(self, opened: _Opened) -> None:
        try:
            store = self._make()
            await store.open_readonly()
        except Exception as error:
            self._forget(opened)
            opened.ready.set_exception(error)
            return
        try:
            opened.ready.set_result(store)
            await self._until_idle(opened)
        finally:
            # Before anything is awaited: who comes now opens the store again.
            self._forget(opened)
            await store.close()

    async def _until_idle(self, opened: _Opened) -> None:
        while True:
            opened.changed.clear()
            if opened.users or not opened.closing:
                try:
                    await asyncio.wait_for(opened.changed.wait(), None if opened.users else IDLE_FOR)
                except TimeoutError:
                    return
            if opened.closing and not opened.users:
                return

    def _forget(self, opened: _Opened) -> None:
        if self._opened is opened:
            self._opened = None
