"""The report: each row's last figures, kept as JSON, and the page generated from them."""

import platform
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from reliability import ROOT
from reliability.measures import commit
from reliability.registry import ROWS
from reliability.row import Figures, Result

KEPT = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"

INTRODUCTION = """\
# What was measured

Nothing acknowledged is lost, nothing is decided twice, nothing forged gets in: each row below is a fault, given in the
dose that stands with it to a real receiver process over real HTTP. `make reliability` runs all rows, `make reliability
ROWS=1,3` some; this page is written by it and never by hand. A row keeps the figures of its last run, with the date and
the commit. The ordinary tests (`make test`) give many of the same faults in smaller doses.

The PostgreSQL is a real one, on the same machine: it comes with the test pins, as a wheel, and runs with `fsync` on.
Some rows need a program that is not installed with them, and say so: 3 strace, 10 PgBouncer, 15 libfaketime.

"""


class Run(Struct, frozen=True):
    """Hold one run of a row on one store."""

    date: str
    commit: str
    machine: str
    seconds: float
    figures: Figures
    problems: list[str]

    @property
    def passed(self) -> bool:
        return not self.problems


Runs = dict[int, dict[str, Run]]


def load(kept: Path = KEPT) -> Runs:
    """Read the last run of each row, by row and store; empty if there is none."""
    return msgspec.json.decode(kept.read_bytes(), type=Runs) if kept.exists() else {}


def save(runs: Runs, kept: Path = KEPT, page: Path = PAGE) -> None:
    """Save the runs of existing rows, and write the page."""
    ordered = {
        number: {kind: run for kind, run in runs[number].items() if kind in ROWS[number].kinds}
        for number in sorted(runs.keys() & ROWS.keys())
    }
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=2) + b"\n")
    page.write_text(render(ordered), encoding="utf-8")


def stamped(result: Result, seconds: float, version: str) -> Run:
    """Return a run: a result with the date, the commit, the machine and the version of the store."""
    return Run(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=commit("src", "reliability"),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {version}",
        seconds=round(seconds, 1),
        figures=result.figures,
        problems=result.problems,
    )


def render(runs: Runs) -> str:
    """Return the page."""
    lines = ["| # | Fault | Store | | Date | Commit |", "|---|---|---|---|---|---|"]
    for number, row in ROWS.items():
        for store in row.kinds:
            lines.append(f"| {number} | {row.fault} | {store} | {_verdict(runs.get(number, {}).get(store))} |")
    sections = [_section(number, store, run) for number, by_store in runs.items() for store, run in by_store.items()]
    return INTRODUCTION + "\n".join(lines) + "\n" + "".join(sections)


def _verdict(run: Run | None) -> str:
    if run is None:
        return "not run yet | |"
    return f"{'passed' if run.passed else '**failed**'} | {run.date} | {run.commit}"


def _section(number: int, store: str, run: Run) -> str:
    row = ROWS[number]
    figures = "\n".join(f"| {name} | {_shown(value)} |" for name, value in run.figures.items())
    problems = "".join(f"- {problem}\n" for problem in run.problems)
    wrong = f"\nWhat was wrong:\n\n{problems}" if problems else ""
    return (
        f"\n## {number}. {row.fault} ({store})\n\n"
        f"Must hold: {row.must_hold}.\n\n"
        f"| Figure | |\n|---|---:|\n{figures}\n| took | {run.seconds:,.0f} s |\n"
        f"\n{run.machine}.\n{wrong}"
    )


def _shown(value: int | float | str) -> str:
    return value if isinstance(value, str) else f"{value:,}"
