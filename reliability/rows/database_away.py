"""Row 8: PostgreSQL is unavailable for a while, and assistants are live; some replicas have a spill, some have none."""

import asyncio
import math
from pathlib import Path

from msgspec import Struct

from reliability.fleet import Fleet
from reliability.measures import percentile
from reliability.process import Receiver
from reliability.row import Figures, Result
from reliability.stores import PostgresStores, decided
from reliability.ticks import Tick, overlaps
from tests.support.postgres import Server
from whereby_trigger.clock import boot_time
from whereby_trigger.testing import webhook

LEASE = 30.0
REPLICAS, ROOMS = 2, 4
SETTLED_WITHIN = 60.0
DELIVERED_AFTER = 1.0
"""Seconds into an outage at which a webhook is delivered."""

LEFT_ALONE = 2.0
"""Seconds after an outage during which unaffected assistants are still watched."""

STALLED = 3.0
"""A longer pause between two ticks of an assistant counts as a stop: the machine is busy."""


class Outage(Struct, frozen=True):
    """Hold when the database went away and came back, by the boot clock."""

    began: float
    ended: float


class Cell:
    """Hold replicas on their own database, with assistants in some rooms."""

    def __init__(self, folder: Path, stores: PostgresStores, *, spills: bool) -> None:
        folder.mkdir()
        self._folder = folder
        self._spills = spills
        self.fleet = Fleet(folder, stores, "--lease-ttl", f"{LEASE:g}")
        self._rooms: set[str] = set()
        self._sent: dict[str, int] = {}
        self.problems: list[str] = []
        self.back: list[float] = []

    async def start(self) -> None:
        for number in range(REPLICAS):
            spill = ("--spill", f"sqlite:///{self._folder / f'spill-{number}.db'}") if self._spills else ()
            await self.fleet.start(*spill)
        for number in range(ROOMS):
            await self._join(self.fleet.replicas[number % REPLICAS])
        await self.settle()

    async def settle(self) -> None:
        """Wait until every room has an assistant, and the store says so."""
        since = boot_time()
        ticking = await self.fleet.until(self._rooms, lambda tick: tick.at > since, SETTLED_WITHIN)
        self.problems += [f"no assistant in {room}" for room in self._rooms - ticking.keys()]
        await self.fleet.until_live(self._rooms, SETTLED_WITHIN)

    async def deliver_meanwhile(self) -> None:
        """Deliver while the database is away: accepted with a spill, refused without one."""
        answer = await self._join(self.fleet.replicas[0])
        if answer != (200 if self._spills else 503):
            kind = "with a spill" if self._spills else "without a spill"
            self.problems.append(f"a delivery meanwhile was answered {answer}, {kind}")

    async def untouched(self, outage: Outage, before: set[str]) -> None:
        """Check that every assistant kept running through the outage."""
        await asyncio.sleep(LEFT_ALONE)
        for room in before:
            times = [tick.at for tick in self._ticks(room) if tick.at > outage.began - 1.0]
            owners = {tick.assistant for tick in self._ticks(room) if tick.at > outage.began - 1.0}
            pause = max((b - a for a, b in zip(times, [*times[1:], boot_time()], strict=True)), default=math.inf)
            if len(owners) != 1 or pause > STALLED:
                self.problems.append(f"the assistant in {room} stopped: {len(owners)} there, {pause:.1f} s of silence")

    async def stopped_and_back(self, outage: Outage, before: set[str], within: float) -> None:
        """Check that every assistant left before its lease ran out, and came back after the outage."""
        again = await self.fleet.until(before, lambda tick: tick.at > outage.ended, within)
        self.back += [at - outage.ended for at in again.values()]
        self.problems += [f"no assistant came back to {room}" for room in before - again.keys()]
        for room in before:
            meanwhile = [tick.at for tick in self._ticks(room) if outage.began < tick.at < outage.ended]
            if meanwhile and max(meanwhile) > outage.began + LEASE:
                left = max(meanwhile) - outage.began
                self.problems.append(f"the assistant in {room} was there {left:.1f} s into the outage")

    async def reckon(self) -> int:
        """Check everything once more; return how many webhooks were accepted."""
        await self.settle()
        if doubled := overlaps(self.fleet.ticks.all):
            self.problems.append(f"{len(doubled)} overlapping ticks")
        states = {record.id: record.state for record in await decided(self.fleet.url)}
        taken = [id for id, answer in self._sent.items() if answer == 200]
        self.problems += [f"a webhook is {states.get(id, 'lost')}" for id in taken if states.get(id) != "fired"]
        return len(taken)

    @property
    def rooms(self) -> set[str]:
        return set(self._rooms)

    async def _join(self, replica: Receiver) -> int:
        room = self.fleet.room()
        sent = webhook("room.client.joined", room=room)
        answer = self._sent[sent.id] = await self.fleet.send(sent, replica)
        if answer == 200:
            self._rooms.add(room)
        return answer

    def _ticks(self, room: str) -> list[Tick]:
        self.fleet.ticks.fresh()
        return [tick for tick in self.fleet.ticks.all if tick.room == room]


async def run(
    folder: Path,
    stores: PostgresStores,
    *,
    short: tuple[float, ...],
    long: tuple[float, ...],
    doses: int,
    side_by_side: int,
    within: float,
) -> Result:
    """Stop the database of cells side by side, so each outage has `doses` doses; every second cell has a spill.

    Nothing may stop in a `short` outage; after a `long` one all assistants must be back within `within` seconds. The
    server is killed in one outage and frozen in the next.
    """
    cells = [Cell(folder / str(number), stores, spills=number % 2 == 1) for number in range(side_by_side)]
    figures: Figures = {"doses of each": doses}
    try:
        for cell in cells:
            await cell.start()
        for seconds in (*short, *long):
            for number in range(math.ceil(doses / side_by_side)):
                before = [(cell, cell.rooms) for cell in cells]
                outage = await _away(stores.server, seconds, cells, frozen=number % 2 == 1)
                if seconds in short:
                    await asyncio.gather(*(cell.untouched(outage, rooms) for cell, rooms in before))
                else:
                    await asyncio.gather(*(cell.stopped_and_back(outage, rooms, within) for cell, rooms in before))
                await asyncio.gather(*(cell.settle() for cell in cells))
            figures[f"away for {seconds:g} s: doses"] = math.ceil(doses / side_by_side) * side_by_side
        figures["taken"] = sum([await cell.reckon() for cell in cells])
    finally:
        for cell in cells:
            await cell.fleet.close()
    back = [seconds for cell in cells for seconds in cell.back]
    if back:
        figures["assistants stopped and back"] = len(back)
        figures["back after, median (s)"] = round(percentile(back, 50), 1)
        figures["back after, at most (s)"] = round(max(back), 1)
    return Result(figures, [f"cell {n}: {problem}" for n, cell in enumerate(cells) for problem in cell.problems])


async def _away(server: Server, seconds: float, cells: list[Cell], *, frozen: bool) -> Outage:
    began = boot_time()
    await asyncio.to_thread(server.pause if frozen else server.kill)
    await asyncio.sleep(DELIVERED_AFTER)
    await asyncio.gather(*(cell.deliver_meanwhile() for cell in cells))
    await asyncio.sleep(max(0.0, began + seconds - boot_time()))
    await asyncio.to_thread(server.resume if frozen else server.start)
    return Outage(began, boot_time())
