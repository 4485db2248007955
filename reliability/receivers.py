"""The receivers of a row, started, killed, and always gone at the end; and the evidence of those that are under load.

One dies again and again in a campaign, or one runs for a whole row in a trial.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from reliability import ROOT
from reliability.checker import Emission, Evidence
from reliability.load import Load
from reliability.stores import Stores, viewing
from whereby_trigger.testing.program import Program, ProgramFailed

ReceiverFailed = ProgramFailed
SENDERS = 12
SIGKILLED = -9


def receiver_on(store: str, *options: str) -> tuple[str, ...]:
    """Return the command that runs the program under test on a store, with its options."""
    return (sys.executable, "-m", "reliability.receiver", "--store", store, *options)


class Receiver(Program):
    """Hold one life of the program under test, which may run under another program."""

    async def kill_child(self) -> None:
        """Kill it with -9 if it runs under another program, which then ends on its own; wait until both are gone."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        for child in (await asyncio.to_thread(children.read_text, encoding="ascii")).split():
            os.kill(int(child), signal.SIGKILL)
        await self.ended()


class Receivers:
    """Start receivers on one store, one life after the other or several at once.

    Each runs under the command `prefix` and gets `options`.
    """

    def __init__(
        self, store: str, emissions: Path, *, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()
    ) -> None:
        self._program = (*prefix, *receiver_on(store, "--emissions", str(emissions), *options))
        self._all: list[Receiver] = []
        self.lives = 0

    async def start(self, *options: str) -> Receiver:
        """Start another receiver, with options of the program; it may not listen yet."""
        self.lives += 1
        receiver = await Receiver.start((*self._program, "--life", str(self.lives), *options), cwd=ROOT)
        self._all.append(receiver)
        return receiver

    async def why_not_refused(self, refusal: str, *options: str) -> list[str]:
        """Start another receiver, which must exit and name the refusal; return what is wrong if it does not."""
        receiver = await self.start(*options)
        with contextlib.suppress(ReceiverFailed):
            await receiver.listening()
            return ["it is taken"]
        code = await receiver.ended()
        if code == 0 or refusal not in receiver.last_words:
            return [f"it ends with {code} and does not say {refusal!r}:\n{receiver.last_words}"]
        return []

    async def close(self) -> None:
        """Kill every receiver that still runs."""
        for receiver in self._all:
            await receiver.kill()


def read_emissions(path: Path) -> list[Emission]:
    """Read the file; it is missing if a receiver never wrote to it."""
    if not path.exists():
        return []
    return [Emission.read(line) for line in path.read_text(encoding="ascii").splitlines()]


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
