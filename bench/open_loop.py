"""A load that keeps its pace: a slow answer delays no later delivery. And how long its deliveries took."""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from bench.bodies import Body
from bench.load import LoadFailed
from bench.outcome import Cell
from bench.programs import SECRET, Notes
from bench.sides import NAMES, Side
from reliability.measures import percentile
from whereby_trigger.testing.sender import Address, Sender, send_paced

REPEAT_AMONG = 200
ANSWERED_WITHIN = 60.0
FIGURES = "p50", "p99", "slowest"
COLUMNS = tuple(f"{until}: {figure} (ms)" for until in ("answered", "listener called") for figure in FIGURES)
LATE = 50.0
"""Milliseconds after which a delivery that should have been sent is late."""


class Delivery(Struct):
    """Hold when a delivery was due, sent and answered, by time.monotonic(); `refusal` is what came instead of a 200."""

    id: str
    due: float
    sent: float
    first: bool
    answered: float | None = None
    refusal: str | None = None

    @property
    def took(self) -> float:
        """Seconds from sending to the 200; raises ValueError if there was none."""
        if self.answered is None:
            raise ValueError(f"delivery {self.id} was not answered 200: {self.refusal}")
        return self.answered - self.sent


class OpenLoop:
    """Send each delivery once to a port, over as many connections as needed, and wait for all answers."""

    def __init__(self, port: int, source: Iterator[Body]) -> None:
        self.sender = Sender(Address.local(port), SECRET, answer_within=ANSWERED_WITHIN)
        self._source = source
        self._chance = random.Random(1)

    async def evenly(self, per_second: float, seconds: float, duplicates: float = 0.0) -> list[Delivery]:
        """Send at an even pace; `duplicates` is the share that repeats something sent shortly before."""
        deliveries: list[Delivery] = []
        began = time.monotonic()

        def due() -> Iterator[tuple[float, tuple[Delivery, bytes]]]:
            for number, (body, first) in enumerate(self._bodies(round(per_second * seconds), duplicates)):
                at = number / per_second
                deliveries.append(Delivery(body.id, began + at, 0.0, first))
                yield at, (deliveries[-1], body.body)

        await send_paced(due(), self._send, asyncio.Event())
        return deliveries

    async def at_once(self, count: int) -> list[Delivery]:
        """Send `count` deliveries at the same time, over connections opened before; raises LoadFailed."""
        bodies = [next(self._source) for _ in range(count)]
        self.hang_up()
        try:
            await self.sender.connect(count)
        except OSError as error:
            raise LoadFailed(f"no connection: {error.strerror}") from error
        due = time.monotonic()
        deliveries = [Delivery(body.id, due, 0.0, True) for body in bodies]
        await asyncio.gather(*(self._send((one, body.body)) for one, body in zip(deliveries, bodies, strict=True)))
        return deliveries

    def hang_up(self) -> None:
        """Close every connection; later deliveries open new ones."""
        self.sender.close()

    async def __aenter__(self) -> "OpenLoop":
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.hang_up()

    def _bodies(self, count: int, duplicates: float) -> Iterator[tuple[Body, bool]]:
        recent: list[Body] = []
        for _ in range(count):
            first = not recent or self._chance.random() >= duplicates
            body = next(self._source) if first else self._chance.choice(recent)
            if first:
                recent = [*recent[1 - REPEAT_AMONG :], body]
            yield body, first

    async def _send(self, one: tuple[Delivery, bytes]) -> None:
        delivery, body = one
        (answer,) = await self.sender.deliver(body, retries=0)
        delivery.sent = answer.sent_at
        if answer.status == 200:
            delivery.answered = answer.sent_at + answer.seconds
        else:
            delivery.refusal = f"HTTP/1.1 {answer.status} {answer.reason}" if answer.status else answer.reason


class Latencies:
    """Collect the milliseconds that deliveries to one side took, counted from when they were sent."""

    def __init__(self) -> None:
        self.answered: list[float] = []
        self.heard: list[float] = []
        self.behind: list[float] = []

    def add(self, deliveries: Iterable[Delivery], notes: Notes) -> None:
        """Add what was sent and when the listener was called for it; raises LoadFailed if either is missing."""
        for delivery in deliveries:
            if delivery.answered is None:
                raise LoadFailed(f"a delivery was not answered 200: {delivery.refusal}")
            self.behind.append((delivery.sent - delivery.due) * 1000)
            self.answered.append((delivery.answered - delivery.sent) * 1000)
            if delivery.first:
                if delivery.id not in notes.times:
                    raise LoadFailed("the listener was not called for a webhook that was answered 200")
                self.heard.append((notes.times[delivery.id] / 1e9 - delivery.sent) * 1000)

    def cells(self) -> list[Cell]:
        """Return the cells under `COLUMNS`."""
        return [*cells(self.answered), *cells(self.heard)]


def cells(milliseconds: Sequence[float]) -> list[Cell]:
    """Return the cells under `FIGURES`."""
    p50, p99 = percentile(milliseconds, 50), percentile(milliseconds, 99)
    return [f"{value:.1f}" for value in (p50, p99, max(milliseconds))]


def doubts(found: Mapping[Side, Latencies]) -> list[str]:
    """Return a warning for each side whose sender did not keep its pace."""
    behind = {side: percentile(one.behind, 99) for side, one in found.items()}
    return [
        f"{NAMES[side]}: 1 % of the deliveries were sent {late:.0f} ms late or more"
        for side, late in behind.items()
        if late > LATE
    ]
