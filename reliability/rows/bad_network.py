"""Row 9: the network to the database is half-open, slow, or loses a connection in the middle of an answer."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from reliability.checker import Evidence, check, in_words
from reliability.corpus import Item
from reliability.link import Link
from reliability.load import Load
from reliability.receivers import Receivers
from reliability.row import Figures, Result
from reliability.stores import PostgresStores, viewing
from whereby_trigger.clock import boot_time
from whereby_trigger.testing.program import until

ANSWER_WITHIN = 4.8
RECOVERS_WITHIN = 15.0
DECIDES_WITHIN = 15.0
"""Seconds after which nothing may wait for its decision because of a fault that is over."""

LOOK = 0.05
LATENCY = 2.0
ANSWERED, RECOVERED, DECIDED = "answered after", "200 again after", "all decided after"
"""What is timed of each fault."""

FAULTS: dict[str, Callable[[Link, Item], None]] = {
    "half-open": lambda link, item: link.silence(),
    "2 s latency": lambda link, item: link.delay(LATENCY),
    "reset in mid-answer": lambda link, item: link.tear(item.id.encode()),
}


class Cell:
    """Hold a receiver, its database, and the link between them."""

    def __init__(self, folder: Path, stores: PostgresStores, seed: int) -> None:
        self.url, self._emissions = stores.new(folder), folder / "emissions"
        self.load = Load(folder, seed)
        self._stack = AsyncExitStack()
        self._link = Link(stores.server.port)
        self.problems: list[str] = []
        self.took: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    async def start(self) -> None:
        await self._stack.enter_async_context(self._link)
        self._receivers = Receivers(self.url, self._emissions, through=self._link.through(self.url))
        await self._stack.enter_async_context(self._receivers)
        self._receiver = await self._receivers.start()
        self.load.port = await self._receiver.listening()

    async def dose(self, fault: str) -> None:
        """Apply the fault to the link, deliver, and heal it; wait until a delivery gets a 200 and all is decided."""
        item, torn = self.load.next(), self._link.torn
        FAULTS[fault](self._link, item)
        await self.load.deliver(item, retries=0)
        answer = self.load.each[-1]
        self.took[fault, ANSWERED].append(answer.seconds)
        if answer.seconds > ANSWER_WITHIN or answer.status not in (200, 503):
            self.problems.append(f"{fault}: answered {answer.status} after {answer.seconds:.2f} s")
        if fault == "reset in mid-answer" and self._link.torn == torn:
            self.problems.append(f"{fault}: no answer was torn")
        self._link.heal()
        healed, again = boot_time(), self.load.next()

        async def is_taken() -> bool:
            return await self.load.deliver(again, retries=0) == 200

        if not await until(is_taken, RECOVERS_WITHIN, LOOK):
            self.problems.append(f"{fault}: not recovered {RECOVERS_WITHIN:g} s after the link was healed")
            return
        self.took[fault, RECOVERED].append(boot_time() - healed)
        try:
            async with viewing(self.url) as view:
                await view.until_decided(DECIDES_WITHIN)
        except TimeoutError:
            self.problems.append(f"{fault}: undecided {DECIDES_WITHIN:g} s after the link was healed")
        self.took[fault, DECIDED].append(boot_time() - healed)

    async def reckon(self) -> Evidence:
        """Stop the receiver and collect all evidence.

        A statement that it gave up on may commit after its last look at the store; the next start decides that webhook.
        """
        await self._receiver.stop()
        again = await self._receivers.start()
        await again.listening()
        return await self._receivers.evidence(self.load, lambda view: again.stop(), recounted=True)

    async def close(self) -> None:
        await self._stack.aclose()
        self.load.close()


async def run(folder: Path, stores: PostgresStores, *, doses: int, side_by_side: int) -> Result:
    """Inject each fault `doses` times, in `side_by_side` receivers at the same time, and time the answers."""
    cells = [Cell(folder / str(number), stores, number) for number in range(side_by_side)]
    try:
        await asyncio.gather(*(cell.start() for cell in cells))
        for fault in FAULTS:
            given = 0
            while given < doses:
                some = cells[: doses - given]
                await asyncio.gather(*(cell.dose(fault) for cell in some))
                given += len(some)
        evidence = [await cell.reckon() for cell in cells]
    finally:
        await asyncio.gather(*(cell.close() for cell in cells))
    problems = [problem for cell in cells for problem in cell.problems]
    problems += [problem for one in evidence for problem in in_words(check(one))]
    figures: Figures = {"doses of each": doses, "acknowledged": sum(one.acknowledged.total() for one in evidence)}
    for fault in FAULTS:
        for what in (ANSWERED, RECOVERED, DECIDED):
            took = [seconds for cell in cells for seconds in cell.took[fault, what]]
            figures[f"{fault}: {what}, at most (s)"] = round(max(took, default=0), 2)
    return Result(figures, problems)
