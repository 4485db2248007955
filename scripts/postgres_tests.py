"""Check pytest's JUnit report that the PostgreSQL tests ran: none skipped, and at least one run.

A skip counts if the test's name, its parameters or the reason mention PostgreSQL, unless another program is missing:
no pins bring strace. A test that runs on every store has this one in its parameters.
"""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

WORD = "postgres"
PARAMETER = "[postgresql"
MISSING = re.compile(r"([\w-]+) is (missing|not installed)\b")


def complaints(report: str) -> list[str]:
    """Return what a report lacks; it is our own test run's."""
    ran, skipped = 0, []
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314 - our own pytest wrote it
        name = f"{case.get('classname')}.{case.get('name')}"
        skip = case.find("skipped")
        reason = "" if skip is None else skip.get("message") or ""
        if skip is None:
            ran += PARAMETER in name
        elif WORD in f"{name} {reason}".lower() and not _lacks_another(reason):
            skipped.append(f"{name} was skipped: {reason}")
    return [*skipped, *([] if ran else ["no test ran on PostgreSQL"])]


def _lacks_another(reason: str) -> bool:
    missing = MISSING.match(reason)
    return missing is not None and WORD not in missing[1].lower()


def main() -> int:
    found = complaints(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
