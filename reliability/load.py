"""A load that waits for nobody: so many deliveries a second, whatever the answers to those before."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from reliability.checker import Evidence
from reliability.corpus import Item, items
from reliability.emissions import Emission
from reliability.http import Connections
from reliability.ledger import Ledger
from reliability.sender import RETRIES, Sender, as_whereby_delivers
from whereby_trigger.store import Record

TICK = 0.002
"""Seconds between looks whether a delivery is due; finer than that a loop's timers are not."""


class Load:
    """Deliver what the corpus makes up, as Whereby delivers it, and keep what was sent and what was acknowledged."""

    def __init__(self, folder: Path, seed: int, *, proxied: bool = False) -> None:
        self._ledger = Ledger(folder / "ledger")
        self.sender = Sender(self._ledger, proxied=proxied)
        self.items: dict[str, Item] = {}
        self._deliveries = as_whereby_delivers(items(seed), seed)
        self._connections = Connections()

    @asynccontextmanager
    async def going(self, rate: float) -> AsyncIterator[None]:
        """Deliver at a rate for as long as an `async with` block, at whose end each delivery has had its answers."""
        ending = asyncio.Event()
        going = asyncio.create_task(self._go(self._deliveries, rate, ending))
        try:
            yield
        finally:
            ending.set()
            await going

    async def burst(self, deliveries: int, seconds: float) -> None:
        """Deliver so much in so many seconds, and wait for the answers; it is made up before, not meanwhile."""
        await self._go([self.next() for _ in range(deliveries)], deliveries / seconds, asyncio.Event())

    def next(self) -> Item:
        """Make up what is to be delivered next."""
        return next(self._deliveries)

    async def deliver(self, item: Item, retries: int = RETRIES) -> int:
        """Deliver a webhook, with retries; return the last answer, 0 for none."""
        self.items[item.id] = item
        return await self.sender.deliver(item, self._connections, retries)

    def acknowledged(self) -> set[str]:
        """Wait until the ledger is on disk, to which nothing can be added then; give the ids in it."""
        return set(self._ledger.close())

    def evidence(
        self,
        records: Sequence[Record],
        emissions: Sequence[Emission],
        *,
        late_takeovers: bool = False,
        recounted: bool = False,
    ) -> Evidence:
        return Evidence(
            items=self.items,
            sends=self.sender.sends,
            acknowledged=self._ledger.close(),
            records=records,
            emissions=emissions,
            late_takeovers=late_takeovers,
            refused=self.sender.refused,
            recounted=recounted,
        )

    def close(self) -> None:
        self._connections.close()
        self._ledger.close()

    async def _go(self, source: Iterable[Item], rate: float, ending: asyncio.Event) -> None:
        """Deliver what there is, at a rate, until there is nothing more or it is to end."""
        began = time.monotonic()
        under_way: set[asyncio.Task[int]] = set()
        for number, item in enumerate(source):
            while time.monotonic() < began + number / rate and not ending.is_set():
                await asyncio.sleep(TICK)
            if ending.is_set():
                break
            delivery = asyncio.create_task(self.deliver(item))
            under_way.add(delivery)
            delivery.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
