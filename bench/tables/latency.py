"""Table 2: how long a delivery takes at an ordinary pace, until it is answered and until the listener is called."""

from collections.abc import Iterator

from msgspec import Struct

from bench.bodies import bodies
from bench.open_loop import COLUMNS, Latencies, OpenLoop, doubts
from bench.outcome import Grid, Outcome, Problems, Verdict
from bench.rounds import DECIDED_WITHIN
from bench.sides import NAMES, PEER, POSTGRES, SQLITE, Setting, Side
from reliability.measures import percentile

HEARD_TARGET = "At 200 deliveries/s: p99 from sent to listener called at most 10 ms on SQLite"
TARGETS = (HEARD_TARGET,)
HEARD_WITHIN = 10.0
"""Milliseconds."""

WARM_UP = 2.0
"""Seconds at the same pace before those that count."""


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports."""

    per_second: int = 200
    seconds: float = 20.0
    rounds: int = 3
    sides: tuple[Side, ...] = (PEER, SQLITE, POSTGRES)


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Deliver to every side in turn, once per round."""
    problems, source = Problems(), bodies()
    found: dict[Side, Latencies] = {}
    for _ in range(dose.rounds):
        for side in dose.sides:
            with problems.of(NAMES[side]):
                async with setting.up(side, options=("--times",)) as server, OpenLoop(server.port, source) as sender:
                    await sender.evenly(dose.per_second, min(WARM_UP, dose.seconds))
                    deliveries = await sender.evenly(dose.per_second, dose.seconds)
                    if server.books is not None:
                        await server.books.until_decided(DECIDED_WITHIN)
                    found.setdefault(side, Latencies()).add(deliveries, await server.stop())
    return Outcome(_grids(found), list(_verdicts(found)), problems.all, doubts(found))


def _grids(found: dict[Side, Latencies]) -> list[Grid]:
    rows = [[NAMES[side], len(one.answered), *one.cells()] for side, one in found.items()]
    return [Grid(("", "deliveries", *COLUMNS), rows)]


def _verdicts(found: dict[Side, Latencies]) -> Iterator[Verdict]:
    if SQLITE in found:
        heard = percentile(found[SQLITE].heard, 99)
        yield Verdict(HEARD_TARGET, f"{heard:.1f} ms", heard <= HEARD_WITHIN)
