"""Check that no module or test is longer than the last bound, and print the longest."""

import sys
from pathlib import Path

LIMIT = 500
FOLDERS = ("src", "tests", "examples", "reliability", "bench", "deploy", "scripts")
SHOWN = 5


def lengths(root: Path) -> list[tuple[int, Path]]:
    """Count the lines of each Python file, the longest first."""
    files = (path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    counted = ((len(path.read_text(encoding="utf-8").splitlines()), path.relative_to(root)) for path in files)
    return sorted(counted, reverse=True)


def main() -> int:
    counted = lengths(Path(__file__).resolve().parent.parent)
    for lines, path in counted[:SHOWN]:
        print(f"{lines:5} {path}")
    too_long = [path for lines, path in counted if lines > LIMIT]
    for path in too_long:
        print(f"{path} is over {LIMIT} lines: is it more than one idea?", file=sys.stderr)
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
