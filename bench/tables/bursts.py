"""Table 3: a lasting load, and larger bursts of deliveries than a receiver should ever see."""

import time
from collections import Counter
from collections.abc import Iterator

from msgspec import Struct

from bench.bodies import bodies
from bench.open_loop import COLUMNS, Delivery, Latencies, OpenLoop, doubts
from bench.outcome import Cell, Grid, Outcome, Problems, Verdict, spread
from bench.rounds import DECIDED_WITHIN
from bench.sides import NAMES, POSTGRES, SQLITE, Server, Setting, Side
from reliability.measures import forget_peak, peak, percentile

LOAD_TARGETS = {
    side: f"The load that lasts, on {NAMES[side]}: p99 under 250 ms, slowest under 2 s, every answer 200"
    for side in (SQLITE, POSTGRES)
}
TARGETS = tuple(LOAD_TARGETS.values())
P99_WITHIN, SLOWEST_WITHIN = 250.0, 2000.0
"""Milliseconds."""


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports. `duplicates` is a share of the deliveries."""

    per_second: int = 500
    seconds: float = 600.0
    duplicates: float = 0.1
    burst: int = 2000
    bursts: int = 5
    sides: tuple[Side, ...] = (SQLITE, POSTGRES)


class Endured(Struct):
    """Hold what one side received: the lasting load, and the bursts after it.

    `refusals` counts the answers to the load other than 200; `memory` is its peak in bytes meanwhile.
    """

    load: list[Delivery]
    latencies: Latencies
    refusals: Counter[str]
    memory: int
    bursts: list["Burst"]


class Burst(Struct, frozen=True):
    """Hold a burst, and when nothing of it was pending any more, by time.monotonic()."""

    deliveries: list[Delivery]
    done: float

    @property
    def answered(self) -> float:
        """Seconds until every delivery was answered."""
        return max(one.answered or self.done for one in self.deliveries) - self.deliveries[0].due

    @property
    def decided(self) -> float:
        """Seconds until every webhook was decided."""
        return max(self.done - self.deliveries[0].due, self.answered)


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Load every side, one after the other, then send the bursts."""
    problems = Problems()
    endured: dict[Side, Endured] = {}
    for side in dose.sides:
        with problems.of(NAMES[side]):
            async with setting.up(side, options=("--times",)) as server, OpenLoop(server.port, bodies()) as sender:
                endured[side] = await _endure(server, sender, dose)
    late = doubts({side: one.latencies for side, one in endured.items()})
    return Outcome([_loads(endured), _bursts(endured, dose)], list(_verdicts(endured)), problems.all, late)


async def _endure(server: Server, sender: OpenLoop, dose: Dose) -> Endured:
    forget_peak(server.process.pid)
    load = await sender.evenly(dose.per_second, dose.seconds, dose.duplicates)
    memory = peak(server.process.pid)
    await _all_decided(server)
    bursts = [await _burst(server, sender, dose.burst) for _ in range(dose.bursts)]
    notes = await server.stop()
    latencies = Latencies()
    latencies.add(_let_in(load), notes)
    for burst in bursts:
        Latencies().add(_let_in(burst.deliveries), notes)
    return Endured(load, latencies, Counter(one.refusal for one in load if one.refusal), memory, bursts)


async def _burst(server: Server, sender: OpenLoop, count: int) -> Burst:
    deliveries = await sender.at_once(count)
    return Burst(deliveries, await _all_decided(server))


def _let_in(deliveries: list[Delivery]) -> list[Delivery]:
    return [one for one in deliveries if one.refusal is None]


async def _all_decided(server: Server) -> float:
    return time.monotonic() if server.books is None else await server.books.until_decided(DECIDED_WITHIN)


def _loads(endured: dict[Side, Endured]) -> Grid:
    rows = [
        [
            NAMES[side],
            len(one.load),
            sum(not delivery.first for delivery in one.load),
            one.refusals.total(),
            *one.latencies.cells(),
            round(one.memory / 2**20),
        ]
        for side, one in endured.items()
    ]
    return Grid(
        ("", "deliveries", "duplicates", "not answered 200", *COLUMNS, "memory, at most (MiB)"),
        rows,
        "The load that lasts",
    )


def _bursts(endured: dict[Side, Endured], dose: Dose) -> Grid:
    rows: list[list[Cell]] = []
    for side, one in endured.items():
        refused = sum(len(burst.deliveries) - len(_let_in(burst.deliveries)) for burst in one.bursts)
        answered, decided = ([getattr(burst, end) for burst in one.bursts] for end in ("answered", "decided"))
        rows.append([NAMES[side], *spread(answered), *spread(decided), refused])
    return Grid(
        ("", "all answered (s)", "at most", "all decided (s)", "at most", "not answered 200"),
        rows,
        f"Bursts of {dose.burst:,} at once, over as many open connections",
    )


def _verdicts(endured: dict[Side, Endured]) -> Iterator[Verdict]:
    for side, target in LOAD_TARGETS.items():
        if side in endured:
            answered, refused = endured[side].latencies.answered, endured[side].refusals.total()
            p99, slowest = percentile(answered, 99), max(answered)
            met = p99 < P99_WITHIN and slowest < SLOWEST_WITHIN and not refused
            yield Verdict(target, f"p99 {p99:.1f} ms, slowest {slowest:.0f} ms, {refused} not 200", met)
