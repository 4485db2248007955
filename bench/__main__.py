"""`python -m bench`: measure the tables, keep their figures, write docs/performance.md."""

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from typing import Any

import msgspec
import uvloop

from bench import report
from bench.cores import share
from bench.load import wrk
from bench.registry import TABLES
from bench.sides import Setting
from bench.stores import stores
from reliability.tools import ToolMissing, find

DISK = "/var/tmp"  # noqa: S108 - where /tmp is in memory, a sync would cost nothing
"""The folder for files, unless TMPDIR names another."""


async def measure(numbers: list[int], given: dict[str, str], *, keep: bool) -> bool:
    """Measure tables one after the other; return True if there was no problem and every target was met."""
    all_well = True
    cores = share()
    os.sched_setaffinity(0, {cores.load})
    for number in numbers:
        table = TABLES[number]
        dose = dosed(table.dose, given)
        print(f"table {number}: {table.title}, {msgspec.to_builtins(dose)}", flush=True)
        run = report.begun(cores.in_words, dose)
        began = time.monotonic()
        with stores(cores.database) as made:
            outcome = await table.run(Setting(cores, made, wrk), dose)
        run = report.ended(run, outcome, time.monotonic() - began)
        print(report.section(number, run), flush=True)
        if keep or dose == table.dose():
            report.save(report.load() | {number: run})
        else:
            print("not kept: this is not the table's own dose (--keep keeps it)", flush=True)
        all_well = all_well and not outcome.problems and all(verdict.met for verdict in outcome.verdicts)
    return all_well


def dosed(kind: type[Any], given: dict[str, str]) -> Any:
    """Build a dose of a kind from strings, leaving out the options of other kinds; raises ValidationError."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name in fields:
            listed = isinstance(fields[name].default, tuple)
            values[name] = text.split(",") if listed else text
    return msgspec.convert(values, kind, strict=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--tables", help="numbers with commas between them; all of them if left out")
    parser.add_argument("--dose", nargs="*", default=[], metavar="NAME=VALUE", help="such as webhooks=20000 rounds=1")
    parser.add_argument("--keep", action="store_true", help="write the page also where the dose is not the table's own")
    options = parser.parse_args()
    try:
        numbers = [int(number) for number in options.tables.split(",")] if options.tables else list(TABLES)
        given = dict(pair.split("=", 1) for pair in options.dose)
        for number in numbers:
            if number in TABLES:
                dosed(TABLES[number].dose, given)
    except (ValueError, msgspec.ValidationError) as error:
        parser.error(f"--tables takes numbers such as 1,3 and --dose pairs such as rounds=1: {error}")
    known = {field.name for table in TABLES.values() for field in msgspec.structs.fields(table.dose)}
    if unknown := sorted(set(given) - known):
        parser.error(f"there is no dose {unknown[0]!r}: there are {', '.join(sorted(known))}")
    if unknown_numbers := sorted(set(numbers) - TABLES.keys()):
        parser.error(f"there is no table {unknown_numbers[0]}: there are {', '.join(map(str, TABLES))}")
    try:
        for tool in ("wrk", "node", "npm"):
            find(tool)
    except ToolMissing as missing:
        parser.error(str(missing))
    # However the run ends, stop what it started and delete what it wrote.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tempfile.tempdir = os.environ.get("TMPDIR", DISK)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 0 if uvloop.run(measure(numbers, given, keep=options.keep)) else 1


if __name__ == "__main__":
    sys.exit(main())
