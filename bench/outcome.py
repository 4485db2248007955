"""The result of a table: grids of figures, targets met or not, and problems."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from msgspec import Struct

from bench.load import LoadFailed
from bench.sides import PeerFailed
from reliability.tools import ToolMissing
from tests.support.postgres import ServerFailed
from whereby_trigger.testing.program import ProgramFailed

Cell = str | int | float | None
"""A figure or a word; None if there is nothing to report."""

FAILURES = (ToolMissing, PeerFailed, ServerFailed, ProgramFailed, LoadFailed, TimeoutError)


class Grid(Struct, frozen=True):
    """Hold figures by row and column; the first cell of a row is its name."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""


def spread(seconds: Sequence[float]) -> list[Cell]:
    """Return two cells: the median and the longest of some times."""
    return [f"{median(seconds):.2f}", f"{max(seconds):.2f}"]


class Verdict(Struct, frozen=True):
    """Hold a target, what was measured for it, and whether it is met."""

    target: str
    measured: str
    met: bool


class Outcome(Struct, frozen=True):
    """Hold a table's figures and its verdicts.

    `problems` lists what could not be measured or does not count; `doubts` lists reasons to distrust a figure.
    """

    grids: list[Grid]
    verdicts: list[Verdict]
    problems: list[str]
    doubts: list[str] = []


class Problems:
    """Collect failures, as sentences."""

    def __init__(self) -> None:
        self._found: dict[str, None] = {}

    @property
    def all(self) -> list[str]:
        return list(self._found)

    @contextmanager
    def of(self, who: str) -> Iterator[None]:
        """Record an exception of a `with` block as a failure of `who`, and continue after it."""
        try:
            yield
        except FAILURES as error:
            self._found[f"{who}: {in_short(error)}"] = None


def in_short(error: Exception) -> str:
    """Return the first and the last line of an error's text, which may hold a program's whole log in between."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
