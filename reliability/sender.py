"""Send to receivers as Whereby sends, and record what was sent, the answers, and what was answered 200."""

import asyncio
import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from reliability.corpus import Item
from reliability.receiver import SECRET
from whereby_trigger.testing import sender
from whereby_trigger.testing.sender import RETRIES, Address, Response

Answer = Response
NOT_ANSWERED_WITHIN = 60.0
"""Seconds that a delivery of `send` waits: a replica may be frozen, and the answer does not show the outcome."""

DUPLICATES = 0.1
REORDER_WITHIN = 8
REPEAT_AMONG = 200


class Ledger:
    """Append ids to a file in a thread, and sync it after each batch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._ids: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger")
        self._thread.start()

    def add(self, id: str) -> None:
        """Record that an id was answered 200."""
        self._ids.put(id)

    def close(self) -> Counter[str]:
        """Wait until everything is on disk; return how often each id was answered 200, read from the file."""
        if self._thread.is_alive():
            self._ids.put(None)
            self._thread.join()
            os.close(self._file)
        return Counter(self.path.read_text(encoding="ascii").split())

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._ids.get()]
            while not self._ids.empty():
                batch.append(self._ids.get())
            ended = batch[-1] is None
            os.write(self._file, "".join(f"{id}\n" for id in batch if id is not None).encode())
            os.fsync(self._file)


class Sender:
    """Deliver to a port that may change, or to one of several, and record acknowledged ids in the ledger.

    With `proxied`, a proxy stands between, which answers 502 if nobody listens or the connection is lost, so this is
    retried too. Without `reuse` each request opens a new connection.
    """

    def __init__(self, ledger: Ledger, *, proxied: bool = False, reuse: bool = True) -> None:
        self._ledger = ledger
        self._sender = sender.Sender(Address.local(), SECRET, proxied=proxied, reuse=reuse)
        self.up = asyncio.Event()
        self.sends: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.each: list[Answer] = []
        self.acknowledged = 0
        self._goal: tuple[int, asyncio.Future[None]] | None = None

    @property
    def ports(self) -> Sequence[int]:
        """The ports that get the deliveries in turn."""
        return [port for _, port in self._sender.address.hosts]

    @ports.setter
    def ports(self, ports: Sequence[int]) -> None:
        self._sender.address = Address.local(*ports)

    @property
    def port(self) -> int:
        return self.ports[0]

    @port.setter
    def port(self, port: int) -> None:
        self.ports = (port,)

    async def deliver(self, item: Item, retries: int = RETRIES) -> int:
        """Deliver a webhook, with retries; return the last answer, 0 for none."""

        def note(answer: Answer) -> None:
            self.sends[item.id] += 1
            self.answers[answer.status] += 1
            self.each.append(answer)
            if answer.status == 200:
                self._acknowledge(item)
            else:
                self.refused.add(item.id)

        return (await self._sender.deliver(item.body, retries=retries, noted=note))[-1].status

    async def get(self, path: str) -> int:
        """Send a GET for a path; return the answer's status, 0 for none."""
        return (await self._sender.get(path)).status

    async def until_acknowledged(self, total: int) -> None:
        """Wait until a total of `total` answers were 200."""
        if self.acknowledged < total:
            self._goal = total, asyncio.get_running_loop().create_future()
            await self._goal[1]

    def close(self) -> None:
        self._sender.close()

    def _acknowledge(self, item: Item) -> None:
        self._ledger.add(item.id)
        self.acknowledged += 1
        if self._goal is not None and self.acknowledged >= self._goal[0] and not self._goal[1].done():
            self._goal[1].set_result(None)


async def send(port: int, body: bytes, *, ahead: float = 0.0) -> int:
    """Deliver a body once, over a new connection; return the answer's status, 0 for none.

    It is signed by a clock that is `ahead` seconds ahead of ours.
    """
    once = sender.Sender(Address.local(port), SECRET, reuse=False, answer_within=NOT_ANSWERED_WITHIN)
    return (await once.deliver(body, ahead=ahead, retries=0))[-1].status


def as_whereby_delivers(items: Iterable[Item], seed: int) -> Iterator[Item]:
    """Yield webhooks out of order, some of them twice: soon or long after."""
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
