"""Table 6: one process and two on one store."""

from msgspec import Struct

from bench.bodies import bodies
from bench.outcome import Grid, Outcome, Problems
from bench.rounds import Ring, several, shared
from bench.series import LATENCIES, SPEED, Series, doubts, trust
from bench.sides import NAMES, POSTGRES, SQLITE, Setting, Side


class Dose(Struct, frozen=True):
    """Hold how much to measure; by default what the page reports."""

    webhooks: int = 100_000
    rounds: int = 3
    connections: int = 64
    processes: tuple[int, ...] = (1, 2)
    sides: tuple[Side, ...] = (SQLITE, POSTGRES)


async def run(setting: Setting, dose: Dose) -> Outcome:
    """Load every number of processes on every side in turn, once per round."""
    problems, ring = Problems(), Ring(setting, bodies())
    series: dict[tuple[Side, int], Series] = {}
    for number in range(dose.rounds):
        for side in dose.sides:
            for processes in dose.processes:
                with problems.of(f"{NAMES[side]}, {processes}"):
                    measured = await several(setting, ring, side, processes, dose.webhooks, dose.connections)
                    series.setdefault((side, processes), Series()).add(number, measured)
    names = {(side, processes): f"{NAMES[side]}, {processes}" for side, processes in series}
    named = {names[entry]: one for entry, one in series.items()}
    figures = [
        [names[entry], *one.speeds(), one.ratio_to(series.get((entry[0], 1))), *one.latencies()]
        for entry, one in series.items()
    ]
    grids = [Grid(("processes", *SPEED, "× one process", *LATENCIES), figures), trust(named)]
    return Outcome(grids, [], problems.all, [*shared(setting, max(dose.processes)), *doubts(named)])
