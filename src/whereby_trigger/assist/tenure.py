"""A replica's tenure: its lease, and what must end before the lease does."""

import asyncio
from collections.abc import Awaitable, Callable

from whereby_trigger.assist.lease import Lease
from whereby_trigger.assist.supervisor import Supervisor
from whereby_trigger.assist.watchdog import Watchdog
from whereby_trigger.boot import boot_time
from whereby_trigger.store import Store

CUT_OFF_BEFORE = 1.0
"""Seconds before the deadline at which an assistant that was told to end is cancelled."""


class Tenure:
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
