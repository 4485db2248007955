"""The suspects: webhooks that were pending at more than one death, let into user code one at a time."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from whereby_trigger.decide.queued import Queued


class Suspects:
    """Give each suspect a turn of its own, those that were blamed the least before the others.

    So a webhook that ends the process does so when the innocent ones that could go before it are decided, and kills
    from outside hit a different one each time.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._taken = False

    @asynccontextmanager
    async def alone(self, queued: Queued) -> AsyncIterator[None]:
        """Wait for a webhook's turn; it lasts as long as an `async with` block."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        heapq.heappush(self._waiting, (queued.attempts, queued.seq, turn))
        # Not at once: those that were queued together come one after the other.
        loop.call_soon(self._admit)
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._taken = False
                self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._taken:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._taken = True
                turn.set_result(None)
