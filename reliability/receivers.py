"""The receivers of a row, started, killed, and always gone at the end; and the evidence of those that are under load.

One dies again and again in a campaign, or one runs for a whole row in a trial.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from reliability import ROOT
from reliability.assistants import Ticks
from reliability.checker import TWICE, Emission, Evidence, Rule, check, examples, in_words
from reliability.load import Load
from reliability.measures import family
from reliability.stores import Stores, View, viewing
from whereby_trigger.clock import boot_time
from whereby_trigger.store import State
from whereby_trigger.testing.program import Program, ProgramFailed

ReceiverFailed = ProgramFailed
SENDERS = 12
SIGKILLED = -9


class Receiver(Program):
    """Hold one life of the program under test, which may run under another program."""

    life = 0
    """Its number among the receivers of its store."""

    async def drain(self) -> None:
        """Drain it until it ends; raises ReceiverFailed if it does not end with 0."""
        if code := await self.stop():
            raise ReceiverFailed(f"a receiver ended with {code}:\n{self.last_words}")

    async def kill_child(self) -> None:
        """Kill it with -9 if it runs under another program, which then ends on its own; wait until both are gone."""
        for child in family(self.pid, generations=1)[1:]:
            os.kill(child, signal.SIGKILL)
        await self.ended()


class Receivers:
    """Start receivers on one store, one life after the other or several at once, and gather what they did.

    Each runs under the command `prefix`, gets `options`, and appends what it emits to a file, if there is one.
    `through` is the URL of the store for them, if it differs from ours.
    """

    def __init__(
        self,
        url: str,
        emissions: Path | None = None,
        *,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
        through: str | None = None,
    ) -> None:
        self.url = url
        self.lives = 0
        program = (sys.executable, "-m", "reliability.receiver", "--store", through or url)
        told = () if emissions is None else ("--emissions", str(emissions))
        self._program = (*prefix, *program, *told, *options)
        self._emissions = emissions
        self._all: list[Receiver] = []

    def command(self, *options: str) -> tuple[str, ...]:
        """Return the command of the next receiver."""
        self.lives += 1
        return (*self._program, "--life", str(self.lives), *options)

    async def start(self, *options: str, env: Mapping[str, str] | None = None) -> Receiver:
        """Start another receiver, with options of the program and `env` on top of our environment.

        It may not listen yet.
        """
        command, life = self.command(*options), self.lives
        receiver = await Receiver.start(command, cwd=ROOT, env=env)
        receiver.life = life
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

    def emissions(self) -> list[Emission]:
        """Read what was emitted; the file is missing if no receiver wrote to it."""
        if self._emissions is None or not self._emissions.exists():
            return []
        return [Emission.read(line) for line in self._emissions.read_text(encoding="ascii").splitlines()]

    async def evidence(
        self,
        load: Load,
        end: Callable[[View], Awaitable[object]],
        *,
        late_takeovers: bool = False,
        recounted: bool = False,
        refused: Set[str] | None = None,
    ) -> Evidence:
        """Wait until all is decided, call `end`, which ends the receivers, and return the evidence of a load."""
        async with viewing(self.url) as view:
            await view.until_decided()
            await end(view)
            return load.evidence(
                await view.records(),
                self.emissions(),
                late_takeovers=late_takeovers,
                recounted=recounted,
                losses=await view.losses(),
                refused=refused,
            )

    async def __aenter__(self) -> "Receivers":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Kill every receiver that still runs."""
        for receiver in self._all:
            await receiver.kill()


class Reckoning(Struct, frozen=True):
    """Hold the result of a campaign, as figures and problems."""

    figures: dict[str, int]
    problems: list[str]


class Campaign:
    """Hold the load and the receivers of one store, which have a `quick_lease` unless nobody dies."""

    def __init__(
        self, folder: Path, stores: Stores, seed: int, *, prefix: Sequence[str] = (), quick_lease: bool = True
    ) -> None:
        self.chance = random.Random(seed)
        url = stores.new(folder)
        self.load = Load(folder, seed, proxied=True)
        options = stores.quick_lease if quick_lease else ()
        self.receivers = Receivers(url, folder / "emissions", prefix=prefix, options=options)
        self._late_takeovers = stores.late_takeovers
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
        await self.load.until_acknowledged(acknowledged)
        await asyncio.sleep(self.chance.uniform(0, 0.004))
        self.load.up.clear()
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
        self.load.up.clear()
        if code != SIGKILLED:
            raise ReceiverFailed(f"the receiver ended with {code} instead of dying {boundary}:\n{receiver.last_words}")

    async def reckon(self, receiver: Receiver | None = None, *, refused: Set[str] = frozenset()) -> Reckoning:
        """Stop sending, let the given receiver or a last new one decide everything and end, and check the evidence.

        No answer may be a refusal or a 500. `refused` may come later than sent.
        """
        last = receiver or await self.start()
        self._ending.set()
        await asyncio.gather(*self._workers)
        evidence = await self.receivers.evidence(
            self.load, lambda view: last.drain(), late_takeovers=self._late_takeovers, refused=refused
        )
        broken, answers = check(evidence), self.load.answers
        problems = in_words(broken)
        problems += [f"{answers[status]} answers were {status}" for status in answers if 400 <= status <= 500]
        heard = [emission.id for emission in evidence.emissions]
        figures = {
            "acknowledged": evidence.acknowledged.total(),
            "webhooks": len(evidence.records),
            "successes": len(set(heard)),
            "emitted again after a death": len(heard) - len(set(heard)),
            "parked as poison": len(evidence.parked),
            "lost": examples(broken, Rule.LOST),
            "decided twice": examples(broken, *TWICE),
        }
        return Reckoning(figures, problems)

    async def __aenter__(self) -> "Campaign":
        self._workers = [asyncio.create_task(self.load.work(self._ending)) for _ in range(SENDERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self.receivers.close()
        self.load.close()

    def _send_to(self, port: int) -> None:
        self.load.port = port
        self.load.up.set()


class Trial(Struct, frozen=True):
    """Hold a listening receiver, and the load sent to it."""

    receiver: Receiver
    load: Load
    receivers: Receivers

    async def evidence(self, *, recounted: bool = False) -> Evidence:
        """Wait until all is decided, drain the receiver, and return the evidence."""
        return await self.receivers.evidence(self.load, lambda view: self.receiver.stop(), recounted=recounted)


@asynccontextmanager
async def trial(folder: Path, url: str, load: Load, through: str | None = None) -> AsyncIterator[Trial]:
    """Run a receiver for an `async with` block; `through` is the store's URL for the receiver, if it differs."""
    with contextlib.closing(load):
        async with Receivers(url, folder / "emissions", through=through) as receivers:
            receiver = await receivers.start()
            load.port = await receiver.listening()
            yield Trial(receiver, load, receivers)


async def rooms_served(view: View, load: Load, ticks: Ticks, within: float) -> tuple[set[str], set[str]]:
    """Return the rooms of the webhooks that fired, and those of them in which an assistant is within some seconds."""
    rooms = {load.items[record.id].room for record in await view.records() if record.state is State.FIRED}
    now = boot_time()
    return rooms, set(await ticks.until(rooms, within, lambda tick: tick.at > now))
