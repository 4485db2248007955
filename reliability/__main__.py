"""`python -m reliability`: run the rows, keep their figures, write docs/reliability.md."""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from reliability import report
from reliability.receivers import ReceiverFailed
from reliability.registry import ROWS
from reliability.report import Run
from reliability.row import Result, Row
from reliability.stores import stores_of
from reliability.tools import ToolMissing


async def measure(numbers: list[int], stores: list[str] | None, less: Mapping[str, Any]) -> bool:
    """Run rows one after the other; return True if all passed. Only figures of a whole dose are kept.

    `less` holds numbers that replace those of the rows' own doses.
    """
    all_passed = True
    for number in numbers:
        row = ROWS[number]
        for store in row.kinds:
            if stores and store not in stores:
                continue
            print(f"row {number} ({store}): {row.fault}", flush=True)
            try:
                run = await _run(row, store, less)
            except ToolMissing as missing:
                print(f"  not run: {missing}", flush=True)
                all_passed = False
                continue
            if less:
                print(
                    f"  not kept, with {msgspec.json.encode(less).decode()} in place of the row's own dose", flush=True
                )
            else:
                runs = report.load()
                runs.setdefault(number, {})[store] = run
                report.save(runs)
            for name, figure in run.figures.items():
                print(f"  {name}: {figure}", flush=True)
            for problem in run.problems:
                print(f"  wrong: {problem}", flush=True)
            all_passed = all_passed and run.passed
    return all_passed


async def _run(row: Row, store: str, less: Mapping[str, Any]) -> Run:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-") as folder, stores_of(store) as stores:
        version = stores.version
        try:
            result = await row.run(Path(folder), stores, **{**row.doses[store], **less})
        except (ReceiverFailed, AssertionError, TimeoutError) as failure:
            result = Result({}, [f"{type(failure).__name__}: {failure}"])
    return report.stamped(result, time.monotonic() - began, version)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    parser.add_argument("--rows", help="numbers with commas between them; all of them if left out")
    parser.add_argument("--stores", help="stores with commas between them; all that a row knows if left out")
    parser.add_argument(
        "--dose",
        nargs="*",
        default=[],
        metavar="NAME=NUMBER",
        help="such as doses=10, in place of the row's own",
    )
    parser.add_argument(
        "--page", action="store_true", help="run nothing: write the page from the figures that are kept"
    )
    options = parser.parse_args()
    if options.page:
        report.save(report.load())
        return 0
    try:
        numbers = [int(number) for number in options.rows.split(",")] if options.rows else list(ROWS)
    except ValueError:
        parser.error(f"--rows takes numbers with commas between them, such as 1,3, not {options.rows!r}")
    if unknown := sorted(set(numbers) - ROWS.keys()):
        parser.error(f"there is no row {unknown[0]}: there are {', '.join(map(str, ROWS))}")
    try:
        less = {name: msgspec.json.decode(value) for name, value in (pair.split("=", 1) for pair in options.dose)}
    except ValueError:
        parser.error(f"--dose takes numbers by name, such as doses=10, not {' '.join(options.dose)!r}")
    for number in numbers:
        if unknown_doses := sorted(less.keys() - next(iter(ROWS[number].doses.values())).keys()):
            parser.error(f"row {number} has no dose {unknown_doses[0]!r}")
    stores = options.stores.split(",") if options.stores else None
    return 0 if uvloop.run(measure(numbers, stores, less)) else 1


if __name__ == "__main__":
    sys.exit(main())
