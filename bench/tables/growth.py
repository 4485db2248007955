"""Table 4: what a long-used store costs, how fast a start on it is, and how much memory a receiver needs."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

from msgspec import Struct

from bench.bodies import bodies, write_requests
from bench.load import LoadFailed
from bench.open_loop import OpenLoop
from bench.outcome import Cell, Grid, Outcome, Problems, Verdict, spread
from bench.rounds import DECIDED_WITHIN, LATENCIES, SPEED, Ring, Series, doubts, trust
from bench.sides import NAMES, POSTGRES, SQLITE, Server, Setting, Side
from bench.stores import fill, looking_into
from reliability.measures import forget_peak, peak, resident

FIRST = 100
"""Deliveries before a receiver counts as idle: by then all one-time imports and allocations are done."""

SETTLED = 5.0
"""Seconds after which free memory has been given back."""

GROWN, STARTED, PENDING = 5_000_000, 1_000_000, 10_000
GROWTH_TARGET = "5 million webhooks in a SQLite store cost at most 10 % of the throughput"
START_TARGET = "From the start to the first 200 at most 2 s, on SQLite with 1 million decided and 10,000 pending"
IDLE_TARGET = "Idle memory on SQLite at most 80 MiB"
AFTER_TARGET = "Memory after a burst on SQLite within 20 % of what it was before"
TARGETS = (GROWTH_TARGET, START_TARGET, IDLE_TARGET, AFTER_TARGET)
MIB = 2**20


class Start(Struct, frozen=True):
    """Hold the seconds from the start of the process to its first 200, and until everything left over was decided."""

    answered: float
    decided: float


async def start(setting: Setting, side: Side, url: str, pending: int) -> Start:
    """Start a receiver on a store with `pending` pending webhooks, and deliver to it as soon as it listens.

    The time includes the start of Python and all imports.
    """
    async with looking_into(url) as books:
        await books.leave_pending(pending, time.time())
    began = time.monotonic()
    async with setting.up(side, url=url) as server:
        async with OpenLoop(server.port, bodies()) as sender:
            (delivery,) = await sender.at_once(1)
        assert server.books is not None
        decided = await server.books.until_decided(DECIDED_WITHIN)
        await server.stop()
    return Start(delivery.sent + delivery.took - began, decided - began)


class Footprint(Struct, frozen=True):
    """Hold memory in bytes: idle, peak in a burst, after it, peak under load, after that; and bytes on disk."""

    idle: int
    in_burst: int
    after_burst: int
    under_load: int
    after_load: int
    each_on_disk: float


async def footprint(setting: Setting, side: Side, burst: int, webhooks: int, connections: int) -> Footprint:
    """Measure a receiver's memory on a new store before, in and after a burst and a load."""
    source = bodies()
    async with setting.up(side) as server, OpenLoop(server.port, source) as sender:
        assert server.books is not None
        pid = server.process.pid
        await sender.evenly(FIRST, 1.0)
        await server.books.until_decided(DECIDED_WITHIN)
        idle = resident(pid)

        forget_peak(pid)
        if refused := [one.refusal for one in await sender.at_once(burst) if one.refusal]:
            raise LoadFailed(f"{len(refused)} deliveries of a burst were answered {refused[0]}")
        sender.hang_up()
        after_burst, in_burst = await _settled(server), peak(pid)

        forget_peak(pid)
        requests = write_requests(server.folder / "requests", source, webhooks, time.time())
        await setting.generator(server.port, requests, connections, setting.cores.load)
        after_load, under_load = await _settled(server), peak(pid)

        await server.stop()
        each = await server.books.size() / (await server.books.counted(0)).stored
    return Footprint(idle, in_burst, after_burst, under_load, after_load, each)


async def _settled(server: Server) -> int:
    """Wait until all is decided and memory is given back; return the bytes still in use."""
    assert server.books is not None
    await server.books.until_decided(DECIDED_WITHIN)
    await asyncio.sleep(SETTLED)
    return resident(server.process.pid)


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports. `sizes` counts webhooks in the store before."""

    webhooks: int = 100_000
    rounds: int = 3
    connections: int = 64
    sizes: tuple[int, ...] = (0, STARTED, GROWN)
    pending: int = PENDING
    starts: int = 5
    burst: int = 2000
    sides: tuple[Side, ...] = (SQLITE, POSTGRES)

    @property
    def started(self) -> int:
        """The size of the store to start on: the smallest that is not empty."""
        return min(filter(None, self.sizes))


class Grown(Struct):
    """Hold what was measured of one side: rounds by the size of the store, starts, and the footprint."""

    series: dict[int, Series] = {}
    starts: list[Start] = []
    footprint: Footprint | None = None


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Measure a receiver on a new store; fill stores, start on one of them, and load each in turn."""
    problems = Problems()
    grown = {side: Grown() for side in dose.sides}
    for side, one in grown.items():
        with problems.of(NAMES[side]), ExitStack() as stack:
            one.footprint = await footprint(setting, side, dose.burst, dose.webhooks, dose.connections)
            urls = {size: stack.enter_context(setting.stores.new(side)) for size in dose.sizes if size}
            for size, url in urls.items():
                await fill(url, size)
            one.starts = [await start(setting, side, urls[dose.started], dose.pending) for _ in range(dose.starts)]
            await _measure(setting, side, dose, urls, one.series)
    series = {f"{NAMES[side]}, {size:,}": each for side, one in grown.items() for size, each in one.series.items()}
    grids = [_throughputs(grown), trust(series), _starts(grown, dose), _footprints(grown)]
    return Outcome(grids, list(_verdicts(grown, dose)), problems.all, list(doubts(series)))


async def _measure(setting: Setting, side: Side, dose: Dose, urls: dict[int, str], series: dict[int, Series]) -> None:
    ring = Ring(setting, bodies())
    for number in range(dose.rounds):
        for size in dose.sizes:
            async with setting.up(side, url=urls.get(size)) as server:
                measured = await ring.round([server], dose.webhooks, dose.connections)
            series.setdefault(size, Series()).add(number, measured)


def _throughputs(grown: dict[Side, Grown]) -> Grid:
    rows = [
        [f"{NAMES[side]}, {size:,}", *one.speeds(), one.ratio_to(grown[side].series.get(0)), *one.latencies()]
        for side in grown
        for size, one in grown[side].series.items()
    ]
    columns = ("webhooks in the store before", *SPEED, "× an empty store's", *LATENCIES)
    return Grid(columns, rows, "Throughput by the size of the store")


def _starts(grown: dict[Side, Grown], dose: Dose) -> Grid:
    rows: list[list[Cell]] = []
    for side, one in grown.items():
        if one.starts:
            answered, decided = ([getattr(each, end) for each in one.starts] for end in ("answered", "decided"))
            rows.append([NAMES[side], *spread(answered), *spread(decided)])
    return Grid(
        ("", "first 200 (s)", "at most", "all decided (s)", "at most"),
        rows,
        f"From the start of the process, with {dose.started:,} webhooks in the store, {dose.pending:,} of them pending",
    )


def _footprints(grown: dict[Side, Grown]) -> Grid:
    rows: list[list[Cell]] = []
    for side, one in grown.items():
        if (print := one.footprint) is not None:
            memory = (print.idle, print.in_burst, print.after_burst, print.under_load, print.after_load)
            rows.append([NAMES[side], *(round(size / MIB, 1) for size in memory), round(print.each_on_disk)])
    columns = (
        "",
        "idle",
        "in a burst, at most",
        "after it",
        "under load, at most",
        "after it",
        "disk per webhook (bytes)",
    )
    return Grid(columns, rows, "Memory of a receiver on a new store (MiB), and what a webhook takes on disk")


def _verdicts(grown: dict[Side, Grown], dose: Dose) -> Iterator[Verdict]:
    sqlite = grown.get(SQLITE, Grown())
    if GROWN in sqlite.series and (times := sqlite.series[GROWN].times(sqlite.series.get(0))):
        yield Verdict(GROWTH_TARGET, f"{1 - times:.0%}", times >= 0.90)
    if sqlite.starts and (dose.started, dose.pending) == (STARTED, PENDING):
        slowest = max(each.answered for each in sqlite.starts)
        yield Verdict(START_TARGET, f"{slowest:.2f} s, the slowest of {len(sqlite.starts)}", slowest <= 2)
    if sqlite.footprint is not None:
        idle, after = sqlite.footprint.idle / MIB, sqlite.footprint.after_burst / MIB
        yield Verdict(IDLE_TARGET, f"{idle:.0f} MiB", idle <= 80)
        yield Verdict(AFTER_TARGET, f"{after / idle - 1:+.0%}", after <= 1.2 * idle)
