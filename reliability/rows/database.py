"""Rows 7, 8 and 32: PostgreSQL is killed, is away for a while, or is changed by others while it is in use.

Others make it read-only, put a standby in its place, hold locks, and change its settings.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from msgspec import Struct

from reliability.checker import TWICE, Rule, check, examples, in_words
from reliability.fleet import Fleet
from reliability.link import Link
from reliability.load import Load
from reliability.receivers import Receiver, trial
from reliability.row import Figures, Result, found, spread
from reliability.stores import PostgresStores, View, decided, viewing
from tests.support.postgres import Server, database_of
from whereby_trigger.clock import boot_time
from whereby_trigger.store import State
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until

SHORT = 10.0
"""Seconds for which a database may be down without losing anything sent: Whereby retries for longer."""

LEASE = 30.0
REPLICAS, ROOMS = 2, 4
SETTLED_WITHIN = 60.0
DELIVERED_AFTER = 1.0
"""Seconds into an outage at which a webhook is delivered."""

LEFT_ALONE = 2.0
"""Seconds after an outage during which unaffected assistants are still watched."""

BACK_WITHIN = 5.0
HELD_UP = 2.0
"""Seconds after which a delivery counts as blocked by a row that is not its own."""

WATCHED = 30.0
LOOK = 0.05
FORBIDDEN = (Rule.LOST, Rule.INVENTED, Rule.DOUBLED, Rule.UNDECIDED, Rule.MISJUDGED, Rule.UNHEARD, Rule.HEARD_WRONGLY)
"""A lease may run out meanwhile; webhooks not decided by then are decided and emitted again."""

LAZY = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
AS_BEFORE = dict.fromkeys(LAZY, "")


async def run_killed(folder: Path, stores: PostgresStores, *, restarts: int, rate: float, down_for: float) -> Result:
    """Kill the server `restarts` times, and restart it after at most `down_for` seconds, while deliveries continue."""
    chance, server = random.Random(7), stores.server
    load, away = Load(folder, 7), list[float]()
    async with trial(folder, stores.new(folder), load) as under_load:
        async with load.going(rate):
            for _ in range(restarts):
                await asyncio.sleep(chance.uniform(0.5, 2))
                began = time.monotonic()
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(chance.uniform(0, down_for))
                await asyncio.to_thread(server.start)
                away.append(time.monotonic() - began)
        evidence = await under_load.evidence(recounted=True)
    broken = check(evidence)
    unacknowledged = load.items.keys() - evidence.acknowledged.keys()
    problems = in_words(broken)
    problems += found(len(unacknowledged), "sent were never acknowledged")
    problems += [f"the database was away for {max(away):.1f} s, not under {SHORT:g}"] if max(away) > SHORT else []
    figures: Figures = {
        "restarts": restarts,
        **spread("away", away),
        "sent": len(load.items),
        "acknowledged lost": examples(broken, Rule.LOST),
        "sent lost": len(unacknowledged),
        "answers of 503": load.answers[503],
        "decided twice": examples(broken, *TWICE),
    }
    return Result(figures, problems)


class Outage(Struct, frozen=True):
    """Hold when the database went away and came back, by the boot clock."""

    began: float
    ended: float


class Cell:
    """Hold replicas on their own database, with assistants in some rooms."""

    def __init__(self, folder: Path, stores: PostgresStores, *, spills: bool) -> None:
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
        ticking = await self.fleet.ticks.until(self._rooms, SETTLED_WITHIN, lambda tick: tick.at > since)
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
        self.problems += self.fleet.ticks.interruptions(before, outage.began - 1.0)

    async def stopped_and_back(self, outage: Outage, before: set[str], within: float) -> None:
        """Check that every assistant left before its lease ran out, and came back after the outage."""
        again = await self.fleet.ticks.until(before, within, lambda tick: tick.at > outage.ended)
        self.back += [at - outage.ended for at in again.values()]
        self.problems += [f"no assistant came back to {room}" for room in before - again.keys()]
        for room in before:
            ticks = [tick.at for tick in self.fleet.ticks.all if tick.room == room]
            meanwhile = [at for at in ticks if outage.began < at < outage.ended]
            if meanwhile and max(meanwhile) > outage.began + LEASE:
                left = max(meanwhile) - outage.began
                self.problems.append(f"the assistant in {room} was there {left:.1f} s into the outage")

    async def reckon(self) -> int:
        """Check everything once more; return how many webhooks were accepted."""
        await self.settle()
        self.problems += found(len(self.fleet.ticks.overlaps()), "overlapping ticks")
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


async def run_away(
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
        figures |= spread("back after", back, 1)
    return Result(figures, [f"cell {n}: {problem}" for n, cell in enumerate(cells) for problem in cell.problems])


async def _away(server: Server, seconds: float, cells: list[Cell], *, frozen: bool) -> Outage:
    began = boot_time()
    await asyncio.to_thread(server.pause if frozen else server.kill)
    await asyncio.sleep(DELIVERED_AFTER)
    await asyncio.gather(*(cell.deliver_meanwhile() for cell in cells))
    await asyncio.sleep(max(0.0, began + seconds - boot_time()))
    await asyncio.to_thread(server.resume if frozen else server.start)
    return Outage(began, boot_time())


class Changes:
    """Change the database under a receiver and its load again and again, and measure how soon it is back."""

    def __init__(self, stores: PostgresStores, standby: Server, url: str, link: Link, load: Load, view: View) -> None:
        self._stores, self._server, self._standby, self._url = stores, stores.server, standby, url
        self._link, self._load, self._view = link, load, view
        self._chance = random.Random(32)
        self.back: list[float] = []
        self.problems: list[str] = []
        self.faults: dict[str, Callable[[float], Awaitable[None]]] = {
            "read-only": self._read_only,
            "a standby": self._standing_by,
            "a row": self._row,
            "a table": self._table,
            "settings": self._settings,
        }

    async def suffer(self, name: str, longest: float) -> None:
        """Keep one fault up for at least a second and at most `longest` seconds; then check that all works again."""
        await self.faults[name](min(longest, self._chance.lognormvariate(0.0, 1.5) + 1.0))
        began = time.monotonic()
        await until(self._works, WATCHED, LOOK)
        took = time.monotonic() - began
        self.back.append(took)
        if took > BACK_WITHIN:
            self.problems.append(f"{name}: not back until {took:.1f} s after it was over")

    async def _works(self) -> bool:
        """Return True once a new webhook is stored and decided."""
        item = self._load.next()
        if await self._load.deliver(item, retries=0) != 200:
            return False

        async def is_decided() -> bool:
            return all(row.state is not State.PENDING for row in await self._view.of([item.id]))

        if not await until(is_decided, WATCHED, LOOK):
            raise TimeoutError(f"{item.id} is not decided {WATCHED:g} s after it was acknowledged")
        return True

    async def _read_only(self, seconds: float) -> None:
        database = database_of(self._url)
        await self._run(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await asyncio.to_thread(self._stores.disconnect, self._url)
        await asyncio.sleep(seconds)
        await self._run(f"ALTER DATABASE {database} RESET default_transaction_read_only")

    async def _standing_by(self, seconds: float) -> None:
        self._link.lead_to(self._standby.port)
        await asyncio.sleep(seconds)
        self._link.lead_to(self._server.port)

    async def _row(self, seconds: float) -> None:
        """Lock a row, deliver its webhook again, and check that nothing else is delayed."""
        item = self._load.next()
        await self._load.deliver(item)
        rows = f"SELECT FROM whereby_trigger.webhooks WHERE id = '{item.id}' FOR UPDATE"
        async with self._held(rows), asyncio.TaskGroup() as deliveries:
            deliveries.create_task(self._load.deliver(item, retries=0))
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                await self._not_held_up(item.id)
                await asyncio.sleep(LOOK)

    async def _not_held_up(self, locked: str) -> None:
        item, began = self._load.next(), time.monotonic()
        if item.id == locked:
            return
        answer = await self._load.deliver(item, retries=0)
        took = time.monotonic() - began
        if answer != 200 or took > HELD_UP:
            self.problems.append(f"a row: another delivery was answered {answer} after {took:.1f} s")

    async def _table(self, seconds: float) -> None:
        async with self._held("LOCK TABLE whereby_trigger.webhooks"):
            await asyncio.sleep(seconds)

    async def _settings(self, seconds: float) -> None:
        """Turn off synchronous commits to the disk, and crash the server: every acknowledged webhook must be there."""
        await asyncio.to_thread(self._server.reload, **LAZY)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)
        await asyncio.to_thread(self._server.reload, **AS_BEFORE)

    @asynccontextmanager
    async def _held(self, statement: str) -> AsyncIterator[None]:
        holding = await asyncpg.connect(self._url)
        try:
            await holding.execute(f"BEGIN; {statement}")
            yield
        finally:
            await holding.close()

    async def _run(self, statement: str) -> None:
        await asyncio.to_thread(self._server.run, statement)


async def run_changed(folder: Path, stores: PostgresStores, *, doses: int, longest: float, rate: float) -> Result:
    """Inject each fault `doses` times, for at most `longest` seconds each, while deliveries continue."""
    server, url = stores.server, stores.new(folder)
    load = Load(folder, 32)
    async with viewing(url), Link(server.port) as link:
        with server.standby() as standby:
            async with trial(folder, url, load, link.through(url)) as under_load, viewing(url) as view:
                changes = Changes(stores, standby, url, link, load, view)
                async with load.going(rate):
                    for _ in range(doses):
                        for fault in changes.faults:
                            await changes.suffer(fault, longest)
                evidence = await under_load.evidence(recounted=True)
    broken = check(evidence)
    figures: Figures = {
        "faults": doses * len(changes.faults),
        **spread("back after", changes.back),
        "acknowledged": evidence.acknowledged.total(),
        "acknowledged lost": examples(broken, Rule.LOST),
        "answers of 503": load.answers[503],
    }
    return Result(figures, changes.problems + in_words({rule: broken[rule] for rule in FORBIDDEN if rule in broken}))
