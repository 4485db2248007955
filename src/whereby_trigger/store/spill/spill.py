"""The spill: what the database does not take in time waits in a file, and follows in order when it is back."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.protocol import Store
from whereby_trigger.store.records import Added, Arrival
from whereby_trigger.store.spill.junction import Junction
from whereby_trigger.store.spill.moving import Mover
from whereby_trigger.store.spill.spool import BATCH, Spool

logger = logging.getLogger("whereby_trigger.spill")

JOIN_WITHIN: Final = 5.0
"""Seconds that a start waits for the database before it goes on without."""

PING_WITHIN: Final = 1.0

SHORTEST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0
"""Seconds between tries of a database that is away."""


class Spill:
    """Take deliveries for a database that may be away, so that each is on some disk before it is answered.

    `join` opens the database, and raises StoreUnavailable while it is away. `held` tells whether this replica has its
    lease, without which nothing should become its own. `moved` is called when deliveries came out of the spool.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        join: Callable[[], Awaitable[None]],
        held: Callable[[], bool],
        moved: Callable[[], None],
    ) -> None:
        self._store = store
        self._spool = spool
        self._join = join
        self._held = held
        self._junction = Junction(store, spool)
        self._mover = Mover(store, spool, moved)
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._told = ""
        self._running: asyncio.Task[None] | None = None

    @property
    def length(self) -> int:
        """How many deliveries wait for the database."""
        return self._spool.length

    @property
    def settled(self) -> bool:
        """Whether nothing waits that the database would take now."""
        return self._settled.is_set()

    async def open(self) -> None:
        """Take deliveries from now on, and join the database as soon as it is there.

        Raises StoreError where the spool, or a database that is there, cannot be used.
        """
        await self._spool.open()
        if self.length:
            logger.info("deliveries from before that wait in the spill %s: %d", self._spool.path, self.length)
        joining = asyncio.ensure_future(self._join())
        try:
            await asyncio.wait({joining}, timeout=JOIN_WITHIN)
            if joining.done():
                joining.result()
                self._release_if_empty()
            else:
                self._say_away(f"no answer within {JOIN_WITHIN:g} s")
        except StoreUnavailable as error:
            self._say_away(str(error))
        except BaseException:
            joining.cancel()
            await asyncio.wait({joining})
            await self._spool.close()
            raise
        self._running = asyncio.create_task(self._run(joining), name="whereby-trigger spill")

    def add(self, arrival: Arrival) -> Awaitable[Added]:
        """Store a delivery in the database, or where that is away on the spool's disk; `spilled` tells which."""
        return self._junction.add(arrival)

    async def ping(self, now: float) -> None:
        """Return if deliveries are taken, by the database or by the spool.

        Raises StoreUnavailable if not, StoreError if the database takes them but would not keep them.
        """
        if self._junction.direct:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(PING_WITHIN):
                    await self._store.ping(now)
                    return
        await self._spool.ping()

    def wake(self) -> None:
        """Try the database now, if something waits for it."""
        self._woken.set()

    async def settle(self, timeout: float) -> None:
        """Wait until nothing waits that the database would take now, at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()

    async def close(self) -> None:
        """Stop moving, and let go of the file; what is in it stays."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        self._junction.divert("the trigger stops")
        await self._spool.close()
        if self.length:
            logger.warning(
                "deliveries that stay in the spill %s until the next start: %d", self._spool.path, self.length
            )

    async def _run(self, joining: "asyncio.Future[None]") -> None:
        await self._joined(joining)
        while True:
            await self._empty()
            await self._junction.diverted.wait()
            self._say_away(self._junction.why)

    async def _joined(self, joining: "asyncio.Future[None]") -> None:
        pause = SHORTEST_PAUSE
        while True:
            try:
                return await joining
            except Exception as error:
                self._say_away(_in_words(error))
            pause = await self._rest(pause)
            joining = asyncio.ensure_future(self._join())

    async def _empty(self) -> None:
        """Move all that waits, in order; at the end deliveries are held, so that those that keep coming let it end."""
        moved, pause, answers = 0, SHORTEST_PAUSE, False
        while not self._release_if_empty():
            self._settled.clear()
            if answers and self.length <= BATCH:
                self._junction.hold()
            try:
                moved += await self._move()
            except Exception as error:
                self._junction.divert(_in_words(error))
                self._say_away(_in_words(error))
                pause, answers = await self._rest(pause), False
            else:
                pause, answers = SHORTEST_PAUSE, True
        if moved:
            logger.info("the database takes deliveries again, and has those from the spill: %d", moved)

    async def _move(self) -> int:
        if not self._held():
            raise StoreUnavailable("this replica has no lease now")
        return await self._mover.move_oldest()

    def _release_if_empty(self) -> bool:
        if self.length:
            return False
        self._junction.release()
        self._settled.set()
        self._told = ""
        return True

    async def _rest(self, pause: float) -> float:
        """Wait about `pause` seconds, or until woken; give the next pause."""
        self._settled.set()
        with contextlib.suppress(TimeoutError):
            # Replicas that lost one database together should not come back to it together.
            async with asyncio.timeout(random.uniform(pause / 2, pause)):  # noqa: S311
                await self._woken.wait()
        self._woken.clear()
        return min(2 * pause, LONGEST_PAUSE)

    def _say_away(self, why: str) -> None:
        if why != self._told:
            self._told = why
            logger.warning("deliveries go into the spill %s: %s", self._spool.path, why)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, StoreError) else type(error).__name__
