"""A sender that behaves as Whereby does: an answer within 5 s, two retries, duplicates, and no order kept.

Source: Whereby docs, Failed delivery; what it does on a refused connection is not documented.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from msgspec import Struct

from reliability.corpus import Item
from reliability.http import Connection, Connections, NoAnswer
from reliability.ledger import Ledger
from reliability.receiver import SECRET
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

ANSWER_WITHIN = 5.0
RETRIES = 2
BACKOFF = 0.1
"""Seconds before the first retry; the second waits twice as long."""

DUPLICATES = 0.1
REORDER_WITHIN = 8
REPEAT_AMONG = 200


class Answer(Struct, frozen=True):
    """Hold one answer: when its request was sent, by the monotonic clock, how many seconds it took, and its status.

    The status is 504 where none came in time, 502 or 0 where the connection was lost.
    """

    sent_at: float
    seconds: float
    status: int


class Sender:
    """Deliver webhooks to a port that may change, or to one of several, and keep the ledger of what was acknowledged.

    `proxied` means: a proxy stands between, which answers 502 where nobody listens or the connection is lost, so that
    this is retried too. Without it nothing that got no answer is.
    """

    def __init__(self, ledger: Ledger, *, proxied: bool = False) -> None:
        self._ledger = ledger
        self._proxied = proxied
        self.ports: Sequence[int] = ()
        self._chance = random.Random(0)
        self.up = asyncio.Event()
        self.sends: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.each: list[Answer] = []
        self.acknowledged = 0
        self._goal: tuple[int, asyncio.Future[None]] | None = None

    @property
    def port(self) -> int:
        return self._chance.choice(self.ports) if self.ports else 0

    @port.setter
    def port(self, port: int) -> None:
        self.ports = (port,)

    async def work(self, deliveries: Iterator[Item]) -> None:
        """Deliver one after the other over one connection, while the receiver is up, until there is nothing more."""
        connection = Connection()
        try:
            for item in deliveries:
                await self.up.wait()
                await self.deliver(item, connection)
        finally:
            connection.close()

    async def deliver(self, item: Item, connection: Connection | Connections, retries: int = RETRIES) -> int:
        """Deliver a webhook, with retries; return the last answer, 0 for none."""
        answer = 0
        for retry in range(retries + 1):
            if retry:
                await asyncio.sleep(BACKOFF * 2 ** (retry - 1))
            answer = await self._post(item, connection)
            if answer == 200:
                self._acknowledge(item)
            if not self._is_retried(answer):
                break
        return answer

    async def until_acknowledged(self, total: int) -> None:
        """Wait until so many answers in all were 200."""
        if self.acknowledged < total:
            self._goal = total, asyncio.get_running_loop().create_future()
            await self._goal[1]

    async def _post(self, item: Item, connection: Connection | Connections) -> int:
        headers = {SIGNATURE_HEADER: sign(SECRET, item.body, int(time.time()))}
        began = time.monotonic()
        self.sends[item.id] += 1
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await connection.post(self.port, item.body, headers)
        except NoAnswer:
            answer = 502 if self._proxied else 0
        except TimeoutError:
            answer = 504
        self.answers[answer] += 1
        if answer != 200:
            self.refused.add(item.id)
        self.each.append(Answer(began, time.monotonic() - began, answer))
        return answer

    def _acknowledge(self, item: Item) -> None:
        self._ledger.add(item.id)
        self.acknowledged += 1
        if self._goal is not None and self.acknowledged >= self._goal[0] and not self._goal[1].done():
            self._goal[1].set_result(None)

    @staticmethod
    def _is_retried(answer: int) -> bool:
        return answer >= 500


def as_whereby_delivers(items: Iterable[Item], seed: int) -> Iterator[Item]:
    """Give webhooks in an order that is not theirs, some of them twice: at once or long after."""
    chance = random.Random(seed)
    source = iter(items)
    waiting: list[Item] = list(islice(source, REORDER_WITHIN))
    recent: list[Item] = []
    while waiting:
        if recent and chance.random() < DUPLICATES:
            yield chance.choice(recent)
            continue
        item = waiting.pop(chance.randrange(len(waiting)))
        recent = [*recent[-REPEAT_AMONG:], item]
        waiting.extend(islice(source, 1))
        yield item
