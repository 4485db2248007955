"""Share one open store between all pages, and tell the Live pages which deliveries are new or were just decided.

The store is opened for reading only, and closed if no page needs it. The pages have a connection of their own even in
the process of a running trigger, so that its reads never wait for theirs.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.errors import StoreUnavailable, UsageError
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import UNDECIDED, Query, Record, Store

IDLE_FOR: Final = 5.0
"""Seconds after the last read until the store is closed."""

CLOSE_WITHIN: Final = 1.0
"""Seconds that the end of a trigger waits for pages that read: in a large store, a search may take many."""

LOOK_EVERY: Final = 0.4
"""Seconds between two looks, so that a page shows within one second what another process writes."""

LOOK_EVERY_BUSY: Final = 0.75
"""Seconds between two looks if so much comes that it is folded: nobody reads each row then, and every look costs."""

NEWEST: Final = 250
"""Webhooks that one look reads: more than arrive between two looks."""

FOLD_ABOVE: Final = 25
"""Rows of one look above which each room gets one row, and rooms above which the oldest rooms share one."""

HEARTBEAT: Final = 15.0
"""Seconds after which pages are told that nothing is new, so that no proxy ends the connection."""

PAGES: Final = 100
"""Pages that may follow at the same time."""

BEHIND: Final = 16
"""Looks that a slow page may lag behind. After that it misses some, and has to connect again."""

logger = own_logger("whereby_trigger.inspector")


class _Opened:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Store] = _unheard_future()
        self.users = 0
        self.changed = asyncio.Event()
        self.closing = False


class SharedStore:
    """Open a store for reading when the first page asks for it, and close it after some seconds without a page."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._opened: _Opened | None = None
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Store]:
        """Yield the open store.

        Raises StoreError if it does not exist or is unavailable, and ConfigError if a setting cannot be read again.
        """
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
        """Close the store once no page reads it, or after CLOSE_WITHIN seconds."""
        opened, keeper = self._opened, self._keeper
        if opened is not None and keeper is not None and opened.loop is asyncio.get_running_loop():
            opened.closing = True
            opened.changed.set()
            await asyncio.wait({keeper}, timeout=CLOSE_WITHIN)
            keeper.cancel()
            await asyncio.wait({keeper})

    async def _keep(self, opened: _Opened) -> None:
        try:
            store = self._make()
            await store.open_readonly()
        except BaseException as error:
            self._forget(opened)
            cancelled = isinstance(error, asyncio.CancelledError)
            opened.ready.set_exception(StoreUnavailable("the inspector is closed") if cancelled else error)
            if isinstance(error, Exception):
                return
            raise
        try:
            opened.ready.set_result(store)
            await self._until_idle(opened)
        finally:
            # Before the first await: a page that comes now must open the store again.
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
    """Hold what one look found, oldest first, and in `events` what is sent to all pages with the same filters."""

    __slots__ = ("events", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = tuple(records)
        self.events: dict[tuple[str, ...], bytes] = {}


class Folded(Struct, frozen=True):
    """Hold deliveries that came together, oldest first: those of one room, or of `rooms` rooms."""

    room: str | None
    records: tuple[Record, ...]
    rooms: int = 1


def fold(records: Sequence[Record]) -> list[Record | Folded]:
    """Return few records as they are, and of many one entry for each room.

    If that leaves too many entries, the rooms that are not among the newest share one.
    """
    if len(records) <= FOLD_ABOVE:
        return list(records)
    by_room: dict[str | None, list[Record]] = {}
    for record in records:
        # A room moves to the end with each record, so that the rooms at the end are the newest.
        by_room[record.room] = [*by_room.pop(record.room, ()), record]
    rooms = list(by_room.items())
    rest, shown = rooms[:-FOLD_ABOVE], rooms[-FOLD_ABOVE:]
    entries: list[Record | Folded] = []
    if rest:
        entries.append(Folded(None, tuple(record for _, of_room in rest for record in of_room), len(rest)))
    return entries + [of_room[0] if len(of_room) == 1 else Folded(room, tuple(of_room)) for room, of_room in shown]


class _Page:
    def __init__(self) -> None:
        self.batches: asyncio.Queue[Batch | None] = asyncio.Queue(BEHIND)
        self.lost = False

    def put(self, batch: Batch | None) -> None:
        """Add a batch, or None as the last one; a page that lags too far behind gets no more."""
        try:
            self.batches.put_nowait(batch)
        except asyncio.QueueFull:
            self.lost = True


class Follower:
    """Yield what is new for one page."""

    def __init__(self, page: _Page, begun: "asyncio.Future[None]") -> None:
        self._page = page
        self._begun = begun

    async def begun(self) -> None:
        """Wait for the feed's first look: all that is stored from then on comes. Raises UsageError if it fails."""
        await asyncio.shield(self._begun)

    async def next(self) -> Batch:
        """Return the next batch, which may be empty. Raises EOFError if some were missed, or the server stops."""
        batch = None if self._page.lost else await self._page.batches.get()
        if batch is None:
            raise EOFError
        return batch


class LiveFeed:
    """Look into the store while a page is open, once for all of them, and tell each what is new."""

    def __init__(self, shared: SharedStore) -> None:
        self._shared = shared
        self._pages: set[_Page] = set()
        self._looking: asyncio.Task[None] | None = None
        self._look = Looking()
        self._begun: asyncio.Future[None] | None = None
        self._told = time.monotonic()

    @property
    def full(self) -> bool:
        """True if no more pages may follow."""
        return len(self._pages) >= PAGES

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Yield a follower for one page."""
        page = _Page()
        self._pages.add(page)
        if self._begun is None or self._looking is None or self._looking.done():
            self._look, self._told, self._begun = Looking(), time.monotonic(), _unheard_future()
            self._looking = asyncio.create_task(self._run(), name="whereby-trigger-inspector-feed")
        try:
            yield Follower(page, self._begun)
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
                        self._begin()
                        self._tell(new)
                        if server_stops():
                            break
                        await asyncio.sleep(LOOK_EVERY if len(new) <= FOLD_ABOVE else LOOK_EVERY_BUSY)
            except UsageError as error:
                logger.info("the inspector cannot read the store; will retry: %s", type(error).__name__)
                self._begin(error)
                self._tell(())
            if server_stops():
                for page in self._pages:
                    page.put(None)
                return
            await asyncio.sleep(1.0)

    def _begin(self, error: UsageError | None = None) -> None:
        """Wake the pages that wait for the first look; if it failed, pages opened from now on wait for the next."""
        if self._begun is None or self._begun.done():
            return
        if error is None:
            self._begun.set_result(None)
        else:
            self._begun.set_exception(error)
            self._begun = _unheard_future()

    def _tell(self, new: Sequence[Record]) -> None:
        """Send what is new to all pages, or now and then that nothing is."""
        now = time.monotonic()
        if not new and now - self._told < HEARTBEAT:
            return
        self._told, batch = now, Batch(new)
        for page in self._pages:
            page.put(batch)


def server_stops() -> bool:
    """Return True if this process is served by uvicorn, and that was told to stop.

    It waits for every answer to end, without a limit, and tells no app of it before that. A page that follows would
    keep a host app, and the trigger in it, from ending. What handles uvicorn's signals is a method of its server.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True


def _unheard_future() -> "asyncio.Future[Any]":
    """Make a future whose error nobody has to read: a page that stopped waiting never does."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


class Looking:
    """Compare each look with the one before; the first finds nothing new."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str, int]] | None = None
        self._undecided: tuple[str, ...] = ()

    async def new(self, find: Callable[[Query], Awaitable[list[Record]]]) -> list[Record]:
        """Return the webhooks that came, came again or were decided since the last look, oldest first."""
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
