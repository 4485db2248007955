"""The store as all open pages share it, and what is new there: deliveries as they come, and as they are decided.

It is opened for reading only, and closed when nobody looks. It is a connection of its own even beside a running
trigger, whose own reads then never wait for a page's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.store import UNDECIDED, Query, Record, Store

IDLE_FOR: Final = 5.0
"""Seconds after the last read until the store is closed."""

LOOK_EVERY: Final = 0.4
"""Seconds between two looks: what another process writes shows within one second."""

LOOK_EVERY_BUSY: Final = 0.75
"""Seconds between two looks while so much comes that it is folded: nobody reads it one by one, and looks cost."""

NEWEST: Final = 250
"""Webhooks that a look reads: more than arrive between two."""

FOLD_ABOVE: Final = 25
"""Rows of one look above which those of a room become one row, and rooms above which those of others do."""

HEARTBEAT: Final = 15.0
"""Seconds after which pages hear that nothing is new, so that no proxy ends the connection."""

PAGES: Final = 100
"""Pages that may follow at a time."""

BEHIND: Final = 16
"""Looks that a slow page may lag behind; then it misses some, and is told to load again."""

logger = logging.getLogger("whereby_trigger.inspector")


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


class Batch:
    """Hold what one look found, oldest first. What pages show of it is made once, and kept in `events`."""

    __slots__ = ("events", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = tuple(records)
        self.events: dict[tuple[str, ...], bytes] = {}


class Folded(Struct, frozen=True):
    """Hold deliveries that came at once, oldest first: those of one room, or of several `rooms`."""

    room: str | None
    records: tuple[Record, ...]
    rooms: int = 1


def fold(records: Sequence[Record]) -> list[Record | Folded]:
    """Return records as they are, or, if there are many, one entry for each room that has several.

    If that leaves too many, those of the rooms that came first are one entry.
    """
    if len(records) <= FOLD_ABOVE:
        return list(records)
    by_room: dict[str | None, list[Record]] = {}
    for record in records:
        # The room that comes last is the last: what is shown is the newest.
        by_room[record.room] = [*by_room.pop(record.room, ()), record]
    rooms = list(by_room.items())
    rest, shown = rooms[:-FOLD_ABOVE], rooms[-FOLD_ABOVE:]
    entries: list[Record | Folded] = []
    if rest:
        entries.append(Folded(None, tuple(record for _, of_room in rest for record in of_room), len(rest)))
    return entries + [of_room[0] if len(of_room) == 1 else Folded(room, tuple(of_room)) for room, of_room in shown]


class _Page:
    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch] = asyncio.Queue(BEHIND)
        self.lost = False


class Follower:
    """Yield what is new for one page."""

    def __init__(self, page: _Page) -> None:
        self._page = page

    async def next(self) -> Batch:
        """Return the next batch, which may be empty. Raises EOFError if some were missed."""
        if self._page.lost:
            raise EOFError
        return await self._page.batches.get()


class LiveFeed:
    """Look into the store while at least one page is open, and tell every page what is new."""

    def __init__(self, shared: SharedStore) -> None:
        self._shared = shared
        self._pages: set[_Page] = set()
        self._looking: asyncio.Task[None] | None = None
        self._look = Looking()
        self._told = time.monotonic()

    @property
    def full(self) -> bool:
        """True if as many pages follow as may."""
        return len(self._pages) >= PAGES

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Yield a follower for one page."""
        page = _Page()
        self._pages.add(page)
        if self._looking is None or self._looking.done():
            self._look, self._told = Looking(), time.monotonic()
            self._looking = asyncio.create_task(self._run(), name="whereby-trigger-inspector-feed")
        try:
            yield Follower(page)
        finally:
            self._pages.discard(page)
            if not self._pages and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _run(self) -> None:
        while True:
            try:
                async with self._shared.use() as store:
                    while True:
                        new = await self._look.new(store.find)
                        self._tell(new)
                        await asyncio.sleep(LOOK_EVERY if len(new) <= FOLD_ABOVE else LOOK_EVERY_BUSY)
            except StoreError as error:
                logger.info("the inspector cannot read the store; will retry: %s", type(error).__name__)
                self._tell(())
            await asyncio.sleep(1.0)

    def _tell(self, new: Sequence[Record]) -> None:
        """Tell all pages what is new; of nothing new, they hear now and then."""
        now = time.monotonic()
        if not new and now - self._told < HEARTBEAT:
            return
        self._told, batch = now, Batch(new)
        for page in self._pages:
            try:
                page.batches.put_nowait(batch)
            except asyncio.QueueFull:
                page.lost = True


class Looking:
    """Tell what is new or changed from one look to the next; the first look finds nothing new."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str, int]] | None = None
        self._undecided: tuple[str, ...] = ()

    async def new(self, find: Callable[[Query], Awaitable[list[Record]]]) -> list[Record]:
        """Return what came, was decided or came again since the last look, oldest first."""
        newest = await find(Query(limit=NEWEST))
        seen = {record.id for record in newest}
        waiting = tuple(id for id in self._undecided if id not in seen)
        late = await find(Query(ids=waiting)) if waiting else []
        records = [*late, *reversed(newest)]
        known = self._known
        now = {record.id: (str(record.state), record.reason, record.deliveries) for record in records}
        self._known = now
        self._undecided = tuple(record.id for record in records if record.state in UNDECIDED)[-NEWEST:]
        return [] if known is None else [record for record in records if known.get(record.id) != now[record.id]]
