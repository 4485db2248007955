"""The load of a row: deliveries as Whereby sends them, one after the other or at a pace, and the evidence from them."""

import asyncio
import os
import queue
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence, Set
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from reliability.checker import Emission, Evidence
from reliability.corpus import Item, items
from reliability.receiver import SECRET
from whereby_trigger.store import Record
from whereby_trigger.testing.sender import RETRIES, Address, Response, Sender, send_paced

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


class Load:
    """Deliver the corpus as Whereby does, and record what was sent, what was answered, and what was acknowledged.

    It goes to a port that may change, or to one of several in turn. If `source` is given, it is delivered instead, in
    its order. With `proxied`, a proxy stands between, which answers 502 if nobody listens or the connection is lost, so
    this is retried too. Without `reuse` each request opens a new connection.
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
        self.items: dict[str, Item] = {}
        self.sends: Counter[str] = Counter()
        self.refused: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.each: list[Response] = []
        self.up = asyncio.Event()
        self._ledger = Ledger(folder / "ledger")
        self._sender = Sender(Address.local(), SECRET, proxied=proxied, reuse=reuse)
        self._deliveries = source or as_whereby_delivers(items(seed), seed)
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
            await self.up.wait()
            await self.deliver(item)

    def next(self) -> Item:
        """Return the next webhook to deliver."""
        return next(self._deliveries)

    async def deliver(self, item: Item, retries: int = RETRIES) -> int:
        """Deliver a webhook, with retries; return the last answer, 0 for none."""

        def note(answer: Response) -> None:
            self.sends[item.id] += 1
            self.answers[answer.status] += 1
            self.each.append(answer)
            if answer.status == 200:
                self._acknowledge(item)
            else:
                self.refused.add(item.id)

        self.items[item.id] = item
        return (await self._sender.deliver(item.body, retries=retries, noted=note))[-1].status

    async def get(self, path: str) -> int:
        """Send a GET for a path; return the answer's status, 0 for none."""
        return (await self._sender.get(path)).status

    async def until_acknowledged(self, more: int) -> None:
        """Wait until so many more deliveries were answered 200."""
        self._goal = self.answers[200] + more, asyncio.get_running_loop().create_future()
        await self._goal[1]

    def acknowledged(self) -> Counter[str]:
        """Wait until the ledger is on disk, and close it; return how often each id was answered 200."""
        return self._ledger.close()

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
            sends=self.sends,
            acknowledged=self.acknowledged(),
            records=records,
            emissions=emissions,
            late_takeovers=late_takeovers,
            refused=self.refused if refused is None else refused,
            recounted=recounted,
            losses=losses,
        )

    def close(self) -> None:
        self._sender.close()
        self._ledger.close()

    def _acknowledge(self, item: Item) -> None:
        self._ledger.add(item.id)
        if self._goal is not None and self.answers[200] >= self._goal[0] and not self._goal[1].done():
            self._goal[1].set_result(None)

    async def _go(self, source: Iterable[Item], rate: float, ending: asyncio.Event) -> None:
        """Deliver from `source` at a rate, until it is exhausted or `ending` is set."""

        async def deliver(item: Item) -> None:
            await self.deliver(item)

        await send_paced(((number / rate, item) for number, item in enumerate(source)), deliver, ending)


async def send(port: int, body: bytes, *, ahead: float = 0.0) -> int:
    """Deliver a body once, over a new connection; return the answer's status, 0 for none.

    It is signed by a clock that is `ahead` seconds ahead of ours.
    """
    once = Sender(Address.local(port), SECRET, reuse=False, answer_within=NOT_ANSWERED_WITHIN)
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
