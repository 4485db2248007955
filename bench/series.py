"""Rounds of the same kind, and the figures that represent them."""

from collections.abc import Callable, Iterator, Mapping
from statistics import median

from bench.outcome import Cell, Grid
from bench.rounds import Round

SPEED = "webhooks/s", "lowest to highest"
LATENCIES = "p50 (ms)", "p99 (ms)", "slowest (ms)"
CHECKS = (
    "backlog at the end (s), at most",
    "server's CPU per webhook (µs)",
    "database's (µs)",
    "load's core busy, at most",
    "server's core taken by others, at most",
)
CHECKS_TITLE = "How far these figures can be trusted: all but the CPU times are the worst of the rounds"


GENERATOR_AT_MOST = 0.9
OTHERS_AT_MOST = 0.1


class Series:
    """Collect the rounds of one kind, by their number; rounds of other kinds have the same numbers."""

    def __init__(self) -> None:
        self._rounds: dict[int, Round] = {}

    def add(self, number: int, round: Round) -> None:
        self._rounds[number] = round

    def median(self, figure: Callable[[Round], float]) -> float:
        return median(map(figure, self._rounds.values()))

    def most(self, figure: Callable[[Round], float]) -> float:
        return max(map(figure, self._rounds.values()))

    @property
    def speed(self) -> float:
        """The median of webhooks per second."""
        return self.median(lambda round: round.per_second)

    def speeds(self) -> list[Cell]:
        """Return the cells under `SPEED`."""
        speeds = [round.per_second for round in self._rounds.values()]
        return [round(self.speed), f"{min(speeds):,.0f} to {max(speeds):,.0f}"]

    def times(self, other: "Series | None") -> float | None:
        """Return this speed divided by the other's, or None if no round has both.

        It is the median of the rounds' own ratios: what slows a machine for minutes slows both sides of a round.
        """
        if other is None:
            return None
        both = self._rounds.keys() & other._rounds.keys()
        ratios = [self._rounds[number].per_second / other._rounds[number].per_second for number in both]
        return median(ratios) if ratios else None

    def ratio_to(self, other: "Series | None") -> Cell:
        """Return this speed divided by the other's, as a cell."""
        times = self.times(other)
        return None if times is None else f"{times:.2f}"

    def latencies(self) -> list[Cell]:
        """Return the cells under `LATENCIES`."""
        p50, p99 = self.median(lambda round: round.p50), self.median(lambda round: round.p99)
        return [round(p50, 1), round(p99, 1), round(self.most(lambda round: round.slowest), 1)]

    def checks(self) -> list[Cell]:
        """Return the cells under `CHECKS`."""
        database = self.median(lambda round: round.database_cpu)
        return [
            f"{self.most(lambda round: round.backlog):.2f}",
            round(self.median(lambda round: round.server_cpu)),
            round(database) or None,
            f"{self.most(lambda round: round.generator_busy):.0%}",
            f"{self.most(lambda round: round.others):.0%}",
        ]


def trust(named: Mapping[str, Series]) -> Grid:
    """Return how far the figures of each series can be trusted, a row each."""
    return Grid(("", *CHECKS), [[name, *series.checks()] for name, series in named.items()], CHECKS_TITLE)


def doubts(named: Mapping[str, Series]) -> Iterator[str]:
    """Yield a warning if the generator may have set the pace, or if the machine was not quiet."""
    for name, series in named.items():
        busy, others = series.most(lambda round: round.generator_busy), series.most(lambda round: round.others)
        if busy > GENERATOR_AT_MOST:
            yield f"{name}: the load generator was busy for {busy:.0%} of the time, and may have set the pace"
        if others > OTHERS_AT_MOST:
            yield f"{name}: others took {others:.0%} of the server's core, so that its speed says little"
