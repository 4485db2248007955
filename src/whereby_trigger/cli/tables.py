"""Fit a table into a terminal: columns are shortened, go or fold until no line is wider. Pure, but for `rich`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len, chop_cells

GAP: Final = 2
"""Blanks between two columns."""

INDENT: Final = 4
"""Blanks before the last column, if it is below the others."""

LEAST: Final = 24
"""The width that the last column has beside the others, at least; below that it goes below them."""

USUAL: Final = 24
"""The width up to which every column gets what it would like, before any gets more."""

BROAD: Final = 40
"""The width up to which the last one then does, before the others."""

FOLDED: Final = {"room": 16, "type": 16}
"""The width to which a column may fold before the last one goes below the others."""

TIGHT: Final = {"room": 10, "type": 10, "received": 8, "since": 8}
"""The width to which it may fold then."""

NARROWEST: Final = 40
"""The width of a terminal below which lines may break."""

SHORT_ID: Final = 12

GREEN, YELLOW, RED, DIM = "32", "33", "31", "2"
COLOURS: Final[Mapping[str, str]] = (
    dict.fromkeys(("fired", "notified", "live", "ok"), GREEN)
    | dict.fromkeys(("failed", "quarantined"), RED)
    | dict.fromkeys(("pending", "held", "waiting", "starting", "ending"), YELLOW)
    | dict.fromkeys(("skipped", "unhandled", "ended"), DIM)
)
"""The colour of each state, by its name, in a column that is headed `state`."""

PIECES: Final = re.compile(r"[^\s./;,-]*[\s./;,-]+|[^\s./;,-]+")
"""A word and what separates it from the next: lines break there."""


def _without_domain(room: str) -> str:
    return room.replace(".whereby.com/", "/", 1)


GO: Final[Callable[[str], str] | None] = None

STEPS: Final[tuple[tuple[str, Callable[[str], str] | None], ...]] = (
    ("pid", GO),
    ("attempt", GO),
    ("room", _without_domain),
    ("owner", GO),
    ("replica", GO),
)
"""What happens to which column, in this order, while a table is too wide: it goes, or its cells are shortened."""


@dataclass
class _Table:
    """Hold a table's columns: each begins with its heading, "" if the table has none."""

    names: list[str]
    columns: list[list[str]]
    least: dict[int, int] = field(default_factory=dict)
    below: bool = False

    def natural(self, number: int) -> int:
        return max(map(cell_len, self.columns[number]))

    def narrowest(self) -> int:
        """Return the least width into which the table fits as it is now."""
        beside = range(len(self.columns) - self.below)
        widths = [min(self.natural(number), self.least.get(number, self.natural(number))) for number in beside]
        return sum(widths) + GAP * (len(widths) - 1)

    def apply(self, name: str, change: Callable[[str], str] | None) -> None:
        if name not in self.names:
            return
        number = self.names.index(name)
        if change is not None:
            self.columns[number] = [change(cell) for cell in self.columns[number]]
        elif number < len(self.names) - 1:
            del self.names[number], self.columns[number]
            self.fold_last()

    def fold_last(self) -> None:
        self.least = {len(self.columns) - 1: LEAST}

    def fold(self, least: Mapping[str, int]) -> None:
        """Let columns fold to a least width each, by their names."""
        self.least |= {number: least[name] for number, name in enumerate(self.names) if name in least}

    def widths(self, width: int) -> list[int]:
        """Return the width of each column: those that fold share what is left."""
        beside = range(len(self.columns) - self.below)
        widths = [min(self.natural(number), self.least.get(number, self.natural(number))) for number in beside]
        spare = max(0, width - sum(widths) - GAP * (len(widths) - 1))
        last = beside[-1]
        natural = [(number, self.natural(number)) for number in beside]
        usual = [(number, min(wish, USUAL)) for number, wish in natural]
        wishes = [*usual, (last, min(natural[-1][1], BROAD)), *natural]
        for number, wish in wishes:
            more = max(0, min(spare, wish - widths[number]))
            widths[number] += more
            spare -= more
        return widths


def fitted(rows: Sequence[Sequence[str]], header: Sequence[str] | None, width: int, *, coloured: bool) -> list[str]:
    """Return a table's lines, none wider than `width`; `coloured` colours the states."""
    width = max(width, NARROWEST)
    names = list(header or [""] * len(rows[0]))
    table = _Table(names, [[name, *cells] for name, *cells in zip(names, *rows, strict=True)])
    for number, name in enumerate(names):
        if name in ("id", "webhook"):
            table.columns[number] = [cell[:SHORT_ID] for cell in table.columns[number]]
    table.fold_last()
    for name, change in STEPS:
        if table.narrowest() > width:
            table.apply(name, change)
    if table.narrowest() > width:
        table.fold(FOLDED)
    if table.narrowest() > width:
        table.below = len(table.columns) > 1
    if table.narrowest() > width:
        table.fold(TIGHT)
    if table.narrowest() > width:
        return _stacked(table, width)
    return _lines(table, width, headed=header is not None, coloured=coloured)


def _lines(table: _Table, width: int, *, headed: bool, coloured: bool) -> list[str]:
    widths = table.widths(width)
    state = table.names.index("state") if coloured and "state" in table.names else -1
    lines = []
    for row in list(zip(*table.columns, strict=True))[0 if headed else 1 :]:
        folded = [fold(cell, room) for cell, room in zip(row, widths, strict=False)]
        colours = [COLOURS.get(row[state]) if number == state else None for number in range(len(widths))]
        for number in range(max(map(len, folded))):
            parts = [cell[number] if number < len(cell) else "" for cell in folded]
            lines.append(_line(parts, widths, colours))
        if table.below and row[-1]:
            lines += [" " * INDENT + part for part in fold(row[-1], max(1, width - INDENT))]
    return lines


def _stacked(table: _Table, width: int) -> list[str]:
    """Return a line for each cell, behind its heading, and an empty line between two rows."""
    indent = max(map(cell_len, table.names)) + GAP
    lines: list[str] = []
    for row in list(zip(*table.columns, strict=True))[1:]:
        lines += [""] if lines else []
        for name, cell in zip(table.names, row, strict=True):
            first, *more = fold(cell, width - indent)
            lines.append((name.ljust(indent) + first).rstrip())
            lines += [" " * indent + part for part in more]
    return lines


def _line(parts: Sequence[str], widths: Sequence[int], colours: Sequence[str | None]) -> str:
    line, blanks = "", 0
    for part, width, colour in zip(parts, widths, colours, strict=True):
        if part:
            shown = part if colour is None else f"\x1b[{colour}m{part}\x1b[0m"
            line += " " * blanks + shown
            blanks = 0
        blanks += width - cell_len(part) + GAP
    return line


def fold(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` cells, after a blank or a mark if it can."""
    lines, line = [], ""
    for piece in PIECES.findall(text):
        if line and cell_len(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        if cell_len(piece.rstrip()) > width:
            *whole, rest = chop_cells(piece.rstrip(), width)
            lines += whole
            piece = rest + piece[len(piece.rstrip()) :]
        line += piece
    return [*lines, line.rstrip()]
