"""Latencies of deliveries: until the answer, and until the listener was called."""

from collections.abc import Iterable, Mapping, Sequence

from bench.load import LoadFailed
from bench.notes import Notes
from bench.open_loop import Delivery
from bench.outcome import Cell
from bench.sides import NAMES, Side
from reliability.measures import percentile

FIGURES = "p50", "p99", "slowest"
LATE = 50.0
"""Milliseconds after which a delivery that should have been sent is late."""


class Latencies:
    """Collect the milliseconds that deliveries to one side took, counted from when they were sent."""

    def __init__(self) -> None:
        self.answered: list[float] = []
        self.heard: list[float] = []
        self.behind: list[float] = []

    def add(self, deliveries: Iterable[Delivery], notes: Notes) -> None:
        """Add what was sent and when the listener was called for it; raises LoadFailed if either is missing."""
        for delivery in deliveries:
            if delivery.answered is None:
                raise LoadFailed(f"a delivery was not answered 200: {delivery.refusal}")
            self.behind.append((delivery.sent - delivery.due) * 1000)
            self.answered.append((delivery.answered - delivery.sent) * 1000)
            if delivery.first:
                if delivery.id not in notes.times:
                    raise LoadFailed("the listener was not called for a webhook that was answered 200")
                self.heard.append((notes.times[delivery.id] / 1e9 - delivery.sent) * 1000)


def cells(milliseconds: Sequence[float]) -> list[Cell]:
    """Return the cells under `FIGURES`."""
    p50, p99 = percentile(milliseconds, 50), percentile(milliseconds, 99)
    return [f"{value:.1f}" for value in (p50, p99, max(milliseconds))]


def doubts(found: Mapping[Side, Latencies]) -> list[str]:
    """Return a warning for each side whose sender did not keep its pace."""
    behind = {side: percentile(one.behind, 99) for side, one in found.items()}
    return [
        f"{NAMES[side]}: 1 % of the deliveries were sent {late:.0f} ms late or more"
        for side, late in behind.items()
        if late > LATE
    ]
