"""Receivers under load, one that dies again and again or one that runs for a whole row, and the evidence at the end."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from reliability.checker import Evidence
from reliability.emissions import read_emissions
from reliability.load import Load
from reliability.process import Receiver, ReceiverFailed, Receivers
from reliability.stores import Stores, viewing

SENDERS = 12
SIGKILLED = -9


class Campaign:
    """Hold the sender and the receivers of one store, which have a `quick_lease` unless nobody dies."""

    def __init__(
        self, folder: Path, stores: Stores, seed: int, *, prefix: tuple[str, ...] = (), quick_lease: bool = True
    ) -> None:
        self.chance = random.Random(seed)
        self.store = stores.new(folder)
        self._late_takeovers = stores.late_takeovers
        self.emissions = folder / "emissions"
        self._load = Load(folder, seed, proxied=True)
        self.sender = self._load.sender
        options = stores.quick_lease if quick_lease else ()
        self.receivers = Receivers(self.store, self.emissions, prefix=prefix, options=options)
        self._ending = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []

    async def start(self, *options: str) -> Receiver:
        """Start the receiver once more and send to it as soon as it listens."""
        receiver = await self.receivers.start(*options)
        self._send_to(await receiver.listening())
        return receiver

    async def live(self, acknowledged: int) -> None:
        """Run until `acknowledged` more deliveries are acknowledged, then kill the receiver within milliseconds."""
        receiver = await self.start()
        await self.sender.until_acknowledged(self.sender.acknowledged + acknowledged)
        await asyncio.sleep(self.chance.uniform(0, 0.004))
        self.sender.up.clear()
        await receiver.kill()

    async def die_starting(self, within: float) -> None:
        """Start the receiver, and kill it at a random moment of the first seconds, listening or not."""
        receiver = await self.receivers.start()
        await asyncio.sleep(self.chance.uniform(0, within))
        await receiver.kill()

    async def die_at(self, boundary: str, passing: int) -> None:
        """Run until the receiver kills itself at a boundary; raises ReceiverFailed if it never passes it."""
        receiver = await self.receivers.start("--die", boundary, "--passing", str(passing))
        try:
            self._send_to(await receiver.listening())
        except ReceiverFailed:
            if await receiver.ended() != SIGKILLED:
                raise
        code = await receiver.ended()
        self.sender.up.clear()
        if code != SIGKILLED:
            raise ReceiverFailed(f"the receiver ended with {code} instead of dying {boundary}:\n{receiver.last_words}")

    async def reckon(self, receiver: Receiver | None = None) -> Evidence:
        """Stop sending, let the given receiver or a last new one decide everything and end, and return the evidence."""
        receiver = receiver or await self.start()
        self._ending.set()
        await asyncio.gather(*self._workers)
        async with viewing(self.store) as view:
            await view.until_decided()
            if code := await receiver.stop():
                raise ReceiverFailed(f"the receiver ended its last life with {code}:\n{receiver.last_words}")
            records, losses = await view.records(), await view.losses()
        return self._load.evidence(
            records,
            read_emissions(self.emissions),
            late_takeovers=self._late_takeovers,
            losses=losses,
            refused=frozenset(),
        )

    async def __aenter__(self) -> "Campaign":
        self._workers = [asyncio.create_task(self._load.work(self._ending)) for _ in range(SENDERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self.receivers.close()
        self._load.close()

    def _send_to(self, port: int) -> None:
        self.sender.port = port
        self.sender.up.set()


class Trial(Struct, frozen=True):
    """Hold a listening receiver, its store's URL, the file of its listener's notes, and the load sent to it."""

    receiver: Receiver
    url: str
    emissions: Path
    load: Load

    async def evidence(self, *, recounted: bool = False) -> Evidence:
        """Wait until all is decided, drain the receiver, and return the evidence."""
        async with viewing(self.url) as view:
            await view.until_decided()
            await self.receiver.stop()
            records, losses = await view.records(), await view.losses()
            emissions = read_emissions(self.emissions)
            return self.load.evidence(records, emissions, recounted=recounted, losses=losses)


@asynccontextmanager
async def trial(folder: Path, url: str, load: Load, through: str | None = None) -> AsyncIterator[Trial]:
    """Run a receiver for an `async with` block; `through` is the store's URL for the receiver, if it differs."""
    emissions = folder / "emissions"
    receivers = Receivers(through or url, emissions)
    try:
        receiver = await receivers.start()
        load.sender.port = await receiver.listening()
        yield Trial(receiver, url, emissions, load)
    finally:
        await receivers.close()
        load.close()
