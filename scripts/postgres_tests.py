"""Tell from pytest's JUnit report whether what is tested on PostgreSQL was tested: nothing skipped, and something run.

A skip concerns it where the test's name, its parameters or the reason have the word; what runs on every store tells by
its parameter that it ran on this one.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

WORD = "postgres"
PARAMETER = "[postgresql"


def complaints(report: str) -> list[str]:
    """Say what a report lacks; it is our own test run's."""
    ran, skipped = 0, []
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = f"{case.get('classname')}.{case.get('name')}"
        skip = case.find("skipped")
        reason = "" if skip is None else skip.get("message") or ""
        if skip is None:
            ran += PARAMETER in name
        elif WORD in f"{name} {reason}".lower():
            skipped.append(f"{name} was skipped: {reason}")
    return [*skipped, *([] if ran else ["no test ran on PostgreSQL"])]


def main() -> int:
    found = complaints(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
