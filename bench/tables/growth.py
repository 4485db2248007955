"""Table 4: what a store that is long in use costs, how fast a start on it is, and what a receiver takes."""

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from msgspec import Struct

from bench.bodies import bodies
from bench.filling import fill
from bench.footprint import Footprint, footprint
from bench.outcome import Cell, Grid, Outcome, Verdict
from bench.problems import Problems
from bench.rounds import Ring
from bench.series import CHECKS, CHECKS_TITLE, LATENCIES, SPEED, Series, doubts
from bench.setting import Setting
from bench.sides import NAMES, POSTGRES, SQLITE, Side
from bench.startup import Start, start

GROWN, STARTED, PENDING = 5_000_000, 1_000_000, 10_000
GROWTH_TARGET = "5 million webhooks in a SQLite store cost at most 10 % of the throughput"
START_TARGET = "From the start to the first 200 at most 2 s, on SQLite with 1 million decided and 10,000 pending"
IDLE_TARGET = "Idle memory on SQLite at most 80 MiB"
AFTER_TARGET = "Memory after a burst on SQLite within 20 % of what it was before"
TARGETS = (GROWTH_TARGET, START_TARGET, IDLE_TARGET, AFTER_TARGET)
MIB = 2**20


class Dose(Struct, frozen=True):
    """Say how much is measured; by default what the page reports. `sizes` are webhooks in the store beforehand."""

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
        """The size of the store that is started on: the smallest that is not empty."""
        return min(filter(None, self.sizes))


class Grown(Struct):
    """Hold what was measured of one side: rounds by the size of the store, starts, and the footprint."""

    series: dict[int, Series] = {}
    starts: list[Start] = []
    footprint: Footprint | None = None


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Weigh a receiver on a new store; fill stores, start on one of them, and load each in turn."""
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
    grids = [_throughputs(grown), _trust(grown), _starts(grown, dose), _footprints(grown)]
    series = {f"{NAMES[side]}, {size:,}": each for side, one in grown.items() for size, each in one.series.items()}
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


def _trust(grown: dict[Side, Grown]) -> Grid:
    rows = [[f"{NAMES[side]}, {size:,}", *one.checks()] for side in grown for size, one in grown[side].series.items()]
    return Grid(("", *CHECKS), rows, CHECKS_TITLE)


def _starts(grown: dict[Side, Grown], dose: Dose) -> Grid:
    rows: list[list[Cell]] = []
    for side, one in grown.items():
        if one.starts:
            answered, decided = ([getattr(each, end) for each in one.starts] for end in ("answered", "decided"))
            figures = [f"{value:.2f}" for times in (answered, decided) for value in (median(times), max(times))]
            rows.append([NAMES[side], *figures])
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
