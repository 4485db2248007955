"""A trial: one receiver that goes on for all of a row, its load, and what is known of both at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from reliability.checker import Evidence
from reliability.emissions import read_emissions
from reliability.load import Load
from reliability.process import Receiver, Receivers
from reliability.stores import viewing


class Trial(Struct, frozen=True):
    """Hold a receiver that listens, the URL of its store, what its listener notes, and the load that goes to it."""

    receiver: Receiver
    url: str
    emissions: Path
    load: Load

    async def evidence(self, *, recounted: bool = False) -> Evidence:
        """Wait until all is decided, have the receiver drain, and return what is known then."""
        async with viewing(self.url) as view:
            await view.until_decided()
            await self.receiver.stop()
            return self.load.evidence(await view.records(), read_emissions(self.emissions), recounted=recounted)


@asynccontextmanager
async def trial(folder: Path, url: str, load: Load, through: str | None = None) -> AsyncIterator[Trial]:
    """Run a receiver for as long as an `async with` block; `through` is the store's URL as the receiver is told it."""
    emissions = folder / "emissions"
    receivers = Receivers(through or url, emissions)
    try:
        receiver = await receivers.start()
        load.sender.port = await receiver.listening()
        yield Trial(receiver, url, emissions, load)
    finally:
        await receivers.close()
        load.close()
