"""The load of a row: deliveries one after the other or at a pace, and the evidence from them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path

from reliability.checker import Evidence
from reliability.corpus import Item, items
from reliability.emissions import Emission
from reliability.sender import Ledger, Sender, as_whereby_delivers
from whereby_trigger.store import Record
from whereby_trigger.testing.sender import RETRIES, send_paced


class Load:
    """Deliver the corpus as Whereby delivers, and record what was sent and what was acknowledged.

    If `source` is given, it is delivered instead, in its order.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        source: Iterator[Item] | None = None,
        proxied: bool = False,
        reuse: bool = True,
    ) -> None:
        self._ledger = Ledger(folder / "ledger")
        self.sender = Sender(self._ledger, proxied=proxied, reuse=reuse)
        self.items: dict[str, Item] = {}
        self._deliveries = source or as_whereby_delivers(items(seed), seed)

    @asynccontextmanager
    async def going(self, rate: float) -> AsyncIterator[None]:
        """Deliver at a rate for an `async with` block; at its end each delivery has been answered."""
        ending = asyncio.Event()
        going = asyncio.create_task(self._go(self._deliveries, rate, ending))
        try:
            yield
        finally:
            ending.set()
            await going

    async def burst(self, deliveries: int, seconds: float) -> None:
        """Deliver `deliveries` webhooks within `seconds`, and wait for the answers; they are generated before, not
        meanwhile.
        """
        await self._go([self.next() for _ in range(deliveries)], deliveries / seconds, asyncio.Event())

    async def work(self, ending: asyncio.Event) -> None:
        """Deliver one after the other while the receiver is up, until `ending` is set."""
        while not ending.is_set():
            item = self.next()
            await self.sender.up.wait()
            await self.deliver(item)

    def next(self) -> Item:
        """Return the next webhook to deliver."""
        return next(self._deliveries)

    async def deliver(self, item: Item, retries: int = RETRIES) -> int:
        """Deliver a webhook, with retries; return the last answer, 0 for none."""
        self.items[item.id] = item
        return await self.sender.deliver(item, retries)

    def acknowledged(self) -> set[str]:
        """Wait until the ledger is on disk and closed; return the ids in it."""
        return set(self._ledger.close())

    def evidence(
        self,
        records: Sequence[Record],
        emissions: Sequence[Emission],
        *,
        late_takeovers: bool = False,
        recounted: bool = False,
        losses: Sequence[float] = (),
        refused: Set[str] | None = None,
    ) -> Evidence:
        """Return the evidence; `refused` may come later than sent: by default, what was refused once."""
        return Evidence(
            items=self.items,
            sends=self.sender.sends,
            acknowledged=self._ledger.close(),
            records=records,
            emissions=emissions,
            late_takeovers=late_takeovers,
            refused=self.sender.refused if refused is None else refused,
            recounted=recounted,
            losses=losses,
        )

    def close(self) -> None:
        self.sender.close()
        self._ledger.close()

    async def _go(self, source: Iterable[Item], rate: float, ending: asyncio.Event) -> None:
        """Deliver from `source` at a rate, until it is exhausted or `ending` is set."""

        async def deliver(item: Item) -> None:
            await self.deliver(item)

        await send_paced(((number / rate, item) for number, item in enumerate(source)), deliver, ending)
