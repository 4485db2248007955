"""`python -m reliability`: run the rows, keep their figures, write docs/reliability.md."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from reliability import report
from reliability.missing import ToolMissing
from reliability.process import ReceiverFailed
from reliability.registry import ROWS
from reliability.report import Run
from reliability.result import Result
from reliability.row import Row
from reliability.stores import stores_of


async def measure(numbers: list[int], stores: list[str] | None) -> bool:
    """Run rows one after the other and keep each one's figures; tell whether all passed."""
    all_passed = True
    for number in numbers:
        row = ROWS[number]
        for store in row.kinds:
            if stores and store not in stores:
                continue
            print(f"row {number} ({store}): {row.fault}", flush=True)
            try:
                run = await _run(row, store)
            except ToolMissing as missing:
                print(f"  not run: {missing}", flush=True)
                all_passed = False
                continue
            runs = report.load()
            runs.setdefault(number, {})[store] = run
            report.save(runs)
            for name, figure in run.figures.items():
                print(f"  {name}: {figure}", flush=True)
            for problem in run.problems:
                print(f"  wrong: {problem}", flush=True)
            all_passed = all_passed and run.passed
    return all_passed


async def _run(row: Row, store: str) -> Run:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="whereby-trigger-") as folder, stores_of(store) as stores:
        version = stores.version
        try:
            result = await row.run(Path(folder), stores, **row.doses[store])
        except (ReceiverFailed, AssertionError, TimeoutError) as failure:
            result = Result({}, [f"{type(failure).__name__}: {failure}"])
    return report.stamped(result, time.monotonic() - began, version)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    parser.add_argument("--rows", help="numbers with commas between them; all of them if left out")
    parser.add_argument("--stores", help="stores with commas between them; all that a row knows if left out")
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
    return 0 if uvloop.run(measure(numbers, options.stores.split(",") if options.stores else None)) else 1


if __name__ == "__main__":
    sys.exit(main())
