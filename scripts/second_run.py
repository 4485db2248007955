"""Print which tests run a second time, elsewhere, from pytest's JUnit report of the first run of all.

These are the tests on PostgreSQL; with `--quick-half` also the quicker half of all test functions, by the slowest test
of each. Small doses of faults and of the benchmark start dozens of programs and run once. The output is for `pytest
@FILE`.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

WORD = "postgres"
DOSES = ("tests.bench.", "tests.reliability.")
NO_DOSE = "tests.reliability.test_postgres_server"


def second_run(report: str, *, quick_half: bool) -> list[str]:
    """Return the node ids of test functions; it is our own test run's report."""
    slowest: dict[tuple[str, str], float] = {}
    on_postgres: set[tuple[str, str]] = set()
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        module, name = case.get("classname") or "", case.get("name") or ""
        if not module:
            # A whole file that was skipped.
            continue
        function = module, name.partition("[")[0]
        slowest[function] = max(slowest.get(function, 0.0), float(case.get("time") or 0))
        if WORD in f"{module}.{name}".lower() and (not module.startswith(DOSES) or module == NO_DOSE):
            on_postgres.add(function)
    quicker = sorted(slowest, key=slowest.__getitem__)[: len(slowest) // 2] if quick_half else []
    return sorted(f"{module.replace('.', '/')}.py::{name}" for module, name in on_postgres.union(quicker))


def main() -> None:
    report, *options = sys.argv[1:]
    print(*second_run(Path(report).read_text(encoding="utf-8"), quick_half="--quick-half" in options), sep="\n")


if __name__ == "__main__":
    main()
