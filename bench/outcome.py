"""What a table comes to: grids of figures, targets met or not, and what went wrong."""

from collections.abc import Sequence

from msgspec import Struct

Cell = str | int | float | None
"""A figure or a word; None where there is nothing to say."""


class Grid(Struct, frozen=True):
    """Hold figures by row and column; the first cell of a row is its name."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""


class Verdict(Struct, frozen=True):
    """Say what was measured where there is a target, and whether it is met."""

    target: str
    measured: str
    met: bool


class Outcome(Struct, frozen=True):
    """Hold a table's figures and its verdicts.

    `problems` is what could not be measured, or does not count; `doubts` is why figures may say less than they seem to.
    """

    grids: list[Grid]
    verdicts: list[Verdict]
    problems: list[str]
    doubts: list[str] = []
