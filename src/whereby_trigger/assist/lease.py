"""Keeping the lease: renewed in time, known to be lost in time, and what must end before it does."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from whereby_trigger.assist.supervisor import Supervisor
from whereby_trigger.clock import boot_time
from whereby_trigger.errors import StoreError
from whereby_trigger.process import Watchdog
from whereby_trigger.store import Store
from whereby_trigger.store.futures import ignore_result

logger = logging.getLogger("whereby_trigger.assist")

RENEWALS = 6
"""A lease is renewed this often in the time it lasts."""


def margins(ttl: float) -> tuple[float, float]:
    """Give the seconds by which we take a lease for lost before it is, and those before that to end assistants in."""
    return min(1.0, ttl / 30), min(5.0, ttl / RENEWALS)


class Lease:
    """Keep a replica's lease, `ttl` seconds long, on the boot clock.

    `extended` is told each new deadline, by which nothing of ours may run any more; `endangered` is called when it is
    near and no renewal came through; `lost` when it has passed, or somebody else took what was ours.
    """

    def __init__(
        self,
        store: Store,
        ttl: float,
        *,
        extended: Callable[[float], None],
        endangered: Callable[[], Awaitable[None]],
        lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._ttl = ttl
        self._extended = extended
        self._endangered = endangered
        self._lost = lost
        self._margin, self._notice = margins(ttl)
        self._asked: tuple[float, asyncio.Future[bool]] | None = None
        self.deadline = 0.0

    @property
    def held(self) -> bool:
        """Whether what this replica owns is surely still its own."""
        return boot_time() < self.deadline

    def begin(self, sent: float) -> None:
        """Count from `sent`, when the store was asked for the lease."""
        self.deadline = sent + self._ttl - self._margin
        if self.held:
            self._extended(self.deadline)

    async def keep(self) -> None:
        """Renew until cancelled."""
        renewed: bool | None = True
        while True:
            await asyncio.sleep(self._ttl / RENEWALS if renewed else self._margin)
            renewed = await self._renew() if self.held else False
            if renewed is False or not self.held:
                await self._rejoin()
            elif renewed is None and boot_time() > self.deadline - self._notice:
                await self._endangered()

    async def _renew(self) -> bool | None:
        """Renew once; None where the store has not said yet."""
        if self._asked is None:
            self._asked = boot_time(), asyncio.ensure_future(self._store.renew(self._ttl))
            # Nobody waits for it any more once the lease is lost.
            self._asked[1].add_done_callback(ignore_result)
        sent, answer = self._asked
        await asyncio.wait({answer}, timeout=self._margin)
        if not answer.done():
            return None
        self._asked = None
        try:
            renewed = answer.result()
        except StoreError as error:
            logger.warning("the lease was not renewed: %s", error)
            return None
        if renewed:
            self.begin(sent)
        return renewed

    async def _rejoin(self) -> None:
        logger.warning("the lease has run out: starting anew under another id")
        self.deadline, self._asked = 0.0, None
        await self._lost()
        sent = boot_time()
        try:
            await self._store.rejoin(self._ttl)
        except StoreError as error:
            logger.warning("no new lease yet: %s", error)
        else:
            self.begin(sent)


CUT_OFF_BEFORE = 1.0
"""Seconds before the deadline at which an assistant that was told to end is cancelled."""


class Fence:
    """Keep the lease, end the assistants in time when it cannot be kept, and start anew when it is lost."""

    def __init__(
        self,
        store: Store,
        ttl: float,
        supervisor: Supervisor | None,
        watchdog: Watchdog,
        *,
        dropped: Callable[[], Awaitable[None]],
        regained: Callable[[], None],
    ) -> None:
        self._supervisor = supervisor
        self._watchdog = watchdog
        self._dropped = dropped
        self._regained = regained
        self._suspended = False
        self._ending: asyncio.Task[None] | None = None
        self._cut_off_before = min(CUT_OFF_BEFORE, ttl / 30)
        self.lease = Lease(store, ttl, extended=self._extended, endangered=self._endangered, lost=self._lost)

    def _extended(self, deadline: float) -> None:
        supervisor = self._supervisor
        if supervisor is not None:
            self._watchdog.set("the lease", deadline, lambda: supervisor.running)
            supervisor.extended(deadline)
        if self._suspended:
            self._resume()

    def _resume(self) -> None:
        self._suspended = False
        if self._ending is not None:
            self._ending.cancel()
        if self._supervisor is not None:
            self._supervisor.resume()
        self._regained()

    async def _endangered(self) -> None:
        if self._supervisor is not None and not self._suspended:
            self._suspended = True
            self._ending = asyncio.create_task(self._end_in_time(self._supervisor))

    async def _end_in_time(self, supervisor: Supervisor) -> None:
        remaining = self.lease.deadline - boot_time() - self._cut_off_before
        try:
            async with asyncio.timeout(max(0.0, remaining)):
                await supervisor.hand_over("the store cannot be reached, and the lease runs out")
        except TimeoutError:
            await supervisor.cut_off("the lease runs out")

    async def _lost(self) -> None:
        self._suspended = True
        if self._supervisor is not None:
            await self._supervisor.cut_off("the lease has run out")
        await self._dropped()
