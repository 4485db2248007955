"""The report: each table's last figures, kept as JSON, and the page generated from them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.machine import machine, versions
from bench.outcome import Cell, Grid, Outcome
from bench.registry import TABLES
from reliability import ROOT
from reliability.measures import commit

KEPT = ROOT / "docs" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"
TRIED = Path(__file__).with_name("tried.md")

INTRODUCTION = """\
# How fast it is

Each figure on this page was measured by `make bench`, which also writes the page; `make bench TABLES=1,2` measures some
tables. A table keeps the figures of its last run, with the date, the commit and the machine. The Node Trigger parses
and emits; ours verifies, decodes, deduplicates, commits with a sync to disk, decides, records and emits. It is set
against a peer of our own that does what the Node Trigger does, on the same machine and in the same run: compare ratios,
since another machine has other figures. Another build of the same Python has other ratios, too: one without
optimization by profile, as pyenv makes it, is far slower than Debian's, so each run says how fast its Python is.

"""


class Run(Struct, frozen=True):
    """Hold one run of a table."""

    date: str
    commit: str
    machine: list[str]
    versions: str
    placement: str
    seconds: float
    dose: dict[str, Any]
    outcome: Outcome


Runs = dict[int, Run]


def load(kept: Path = KEPT) -> Runs:
    """Read the last run of each table; empty if there is none."""
    return msgspec.json.decode(kept.read_bytes(), type=Runs) if kept.exists() else {}


def save(runs: Mapping[int, Run], kept: Path = KEPT, page: Path = PAGE) -> None:
    """Save the runs and write the page."""
    ordered = {number: runs[number] for number in sorted(runs)}
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n")
    page.write_text(render(ordered), encoding="utf-8")


def begun(placement: str, dose: Struct) -> Run:
    """Describe a run that is about to begin: the machine is described before it is loaded."""
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    settled = msgspec.to_builtins(dose)
    return Run(today, commit("src", "bench"), machine(), versions(), placement, 0.0, settled, Outcome([], [], []))


def ended(run: Run, outcome: Outcome, seconds: float) -> Run:
    """Return a run with its outcome."""
    return msgspec.structs.replace(run, outcome=outcome, seconds=round(seconds, 1))


def render(runs: Mapping[int, Run], tried: str | None = None) -> str:
    """Return the page; `tried` is its last section, which is written by hand."""
    tried = TRIED.read_text(encoding="utf-8") if tried is None else tried
    return INTRODUCTION + _targets(runs) + "".join(_section(number, runs.get(number)) for number in TABLES) + tried


def section(number: int, run: Run) -> str:
    """Return a table's figures, verdicts and problems."""
    outcome = run.outcome
    parts = [_grid(grid) for grid in outcome.grids]
    if outcome.verdicts:
        rows = [(verdict.target, verdict.measured, _met(verdict.met)) for verdict in outcome.verdicts]
        parts.append(_grid(Grid(("target", "measured", ""), rows)))
    parts += [_list("What was wrong", outcome.problems), _list("To be taken with care", outcome.doubts)]
    return "\n".join(filter(None, parts))


def _targets(runs: Mapping[int, Run]) -> str:
    rows: list[tuple[Cell, ...]] = []
    for number, table in TABLES.items():
        run = runs.get(number)
        known = {} if run is None else {verdict.target: verdict for verdict in run.outcome.verdicts}
        for target in table.targets:
            verdict = known.get(target)
            measured = ("not measured yet", "") if verdict is None else (verdict.measured, _met(verdict.met))
            rows.append((target, *measured, number))
    return _grid(Grid(("target", "measured", "", "table"), rows))


def _section(number: int, run: Run | None) -> str:
    table = TABLES[number]
    heading = f"\n## {number}. {table.title}\n\n{table.about}\n\n"
    if run is None:
        return heading + "Not run yet.\n"
    dose = ", ".join(f"{name} {_dose(value)}" for name, value in run.dose.items())
    facts = [f"{run.date}, commit {run.commit}, took {run.seconds:,.0f} s", *run.machine, run.placement, run.versions]
    return heading + f"Dose: {dose}.\n\n{section(number, run)}\n" + "".join(f"- {fact}\n" for fact in facts)


def _grid(grid: Grid) -> str:
    title = f"{grid.title}:\n\n" if grid.title else ""
    head = f"| {' | '.join(grid.columns)} |\n|---|{'---:|' * (len(grid.columns) - 1)}\n"
    return title + head + "".join(f"| {' | '.join(map(_shown, row))} |\n" for row in grid.rows)


def _list(title: str, items: Sequence[str]) -> str:
    return f"{title}:\n\n" + "".join(f"- {' '.join(item.split())}\n" for item in items) if items else ""


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:,}"


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


def _dose(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value:,}"
