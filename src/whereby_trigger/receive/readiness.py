"""Whether this replica can take deliveries and act on them now, as the probe of readiness asks."""

import asyncio
import time

from whereby_trigger.assist import Supervisor
from whereby_trigger.decide import Decider, UserCode
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Store

PING_WITHIN = 2.0
"""Seconds in which the store must take a write."""


class Readiness:
    """Ask each stage whether it can work now; `draining` is set once this replica is about to end."""

    def __init__(self, store: Store, user_code: UserCode, decider: Decider, supervisor: Supervisor) -> None:
        self._store = store
        self._user_code = user_code
        self._decider = decider
        self._supervisor = supervisor
        self.draining = False

    @property
    def spilled(self) -> int | None:
        """How many deliveries wait for the database; None if they have no place to wait."""
        return self._store.spilled

    async def is_ready(self) -> bool:
        """Return True if deliveries are taken, decided and given assistants."""
        short = self._user_code.short or self._decider.short or self._supervisor.short
        return not self.draining and not short and await self._takes_writes()

    async def _takes_writes(self) -> bool:
        try:
            async with asyncio.timeout(PING_WITHIN):
                await self._store.ping(time.time())
        except (StoreError, TimeoutError):
            return False
        return True
