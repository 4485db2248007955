"""Print the changelog's section of the version that pyproject.toml names: the text of its release.

    python scripts/release_notes.py            # for the version that is there
    python scripts/release_notes.py v0.2.0     # and fail unless the tag is that version's

With PROJECT_REPOSITORY, links lead to that repository, as in the package's README.
"""

import os
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.package_metadata import REPOSITORY, readme_elsewhere  # noqa: E402


class NotReady(Exception):
    """The version cannot be released yet; the message says what is missing."""


def release_notes(changelog: str, version: str) -> str:
    """Return the text below a version's heading, `## [0.2.0] - 2026-12-01`. Raises NotReady if there is none."""
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise NotReady(
            f"CHANGELOG.md has no section `## [{version}] - YEAR-MONTH-DAY` with text: give what is under "
            "[Unreleased] that heading, and begin a new [Unreleased]"
        )
    return found[1].strip() + "\n"


def main(arguments: Sequence[str], root: Path = ROOT) -> str:
    """Return what to print. Raises NotReady."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tag = f"v{version}"
    if list(arguments) not in ([], [tag]):
        raise NotReady(f"the tag is {arguments[0]}, but pyproject.toml has the version {version}: tag it {tag}")
    notes = release_notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    return readme_elsewhere(notes, os.environ.get(REPOSITORY, "").rstrip("/"), tag)  # noqa: TID251


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]), end="")
    except NotReady as error:
        sys.exit(str(error))
