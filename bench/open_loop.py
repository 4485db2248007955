"""A sender that keeps its pace whatever the answers take, so that a slow answer delays no later delivery."""

import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial

from msgspec import Struct

from bench.bodies import Body, request
from bench.connection import Connection, NotAnswered, connect

REPEAT_AMONG = 200
ANSWERED_WITHIN = 60.0
KEPT = 2.0
"""Seconds that a connection is kept idle; servers hang up after five, maybe while the next request is on its way."""


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
        """Seconds from its being sent to its 200; raises ValueError where there is none."""
        if self.answered is None:
            raise ValueError(f"delivery {self.id} was not answered 200: {self.refusal}")
        return self.answered - self.sent


class OpenLoop:
    """Send to a port over as many connections as it takes; a connection is used again once it has its answer."""

    def __init__(self, port: int, source: Iterator[Body]) -> None:
        self._port = port
        self._source = source
        self._chance = random.Random(1)
        self._idle: list[tuple[float, Connection]] = []
        self.connections: list[Connection] = []
        self._unanswered: set[asyncio.Future[float]] = set()

    async def evenly(self, per_second: float, seconds: float, duplicates: float = 0.0) -> list[Delivery]:
        """Send at an even pace, a share of it duplicates of what was sent shortly before; wait for the answers."""
        deliveries: list[Delivery] = []
        recent: list[Body] = []
        began = time.monotonic()
        for number in range(round(per_second * seconds)):
            due = began + number / per_second
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            first = not recent or self._chance.random() >= duplicates
            body = next(self._source) if first else self._chance.choice(recent)
            if first:
                recent = [*recent[1 - REPEAT_AMONG :], body]
            deliveries.append(self._send(body, request(body.body, time.time()), due, await self._connection(), first))
        await self._answers()
        return deliveries

    async def at_once(self, count: int) -> list[Delivery]:
        """Send so many at once, over connections that are open already; wait for the answers."""
        waiting = [(body, request(body.body, time.time())) for body in (next(self._source) for _ in range(count))]
        connections = [await self._connected() for _ in range(count)]
        due = time.monotonic()
        deliveries = [
            self._send(body, written, due, connection, True)
            for (body, written), connection in zip(waiting, connections, strict=True)
        ]
        await self._answers()
        return deliveries

    def hang_up(self) -> None:
        """Close every connection; what is sent later is sent over new ones."""
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        self._idle.clear()

    async def __aenter__(self) -> "OpenLoop":
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.hang_up()

    def _send(self, body: Body, written: bytes, due: float, connection: Connection, first: bool) -> Delivery:
        delivery = Delivery(body.id, due, time.monotonic(), first)
        answer = connection.send(written)
        self._unanswered.add(answer)
        answer.add_done_callback(partial(self._answered, delivery, connection))
        return delivery

    def _answered(self, delivery: Delivery, connection: Connection, answer: "asyncio.Future[float]") -> None:
        self._unanswered.discard(answer)
        if answer.cancelled():
            delivery.refusal = "no answer"
        elif isinstance(error := answer.exception(), NotAnswered):
            delivery.refusal = str(error)
            connection.close()
        else:
            delivery.answered = answer.result()
            self._idle.append((delivery.answered, connection))

    async def _answers(self) -> None:
        if self._unanswered:
            _, late = await asyncio.wait(self._unanswered, timeout=ANSWERED_WITHIN)
            for answer in late:
                answer.cancel()

    async def _connection(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if not connection.lost.is_set() and time.monotonic() - since < KEPT:
                return connection
            connection.close()
        return await self._connected()

    async def _connected(self) -> Connection:
        connection = await connect(self._port)
        self.connections.append(connection)
        return connection
