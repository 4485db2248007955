"""Make the documentation's site in build/site, from the pages of the repository as they are.

    make docs                    # or: python scripts/site.py

The pages and the files that they link to are copied, so links lead to the same places as in the repository. To them
comes one page with the docstrings of all public names. A link that leads nowhere, or a page that the navigation of
mkdocs.yml leaves out, is an error.
"""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "examples", "deploy")
"""The folders whose pages and files are part of the site, beside the pages at the root."""

MODULES = ("whereby_trigger", "whereby_trigger.testing")
ONLY_DATA = ("*.json",)
"""Files that generate pages, and are none."""


def api_page() -> str:
    """Return a page with the docstring of every public name."""
    parts = [
        "# API\n",
        "The docstrings of all public names. The [reference](docs/reference.md) explains how they fit.\n",
    ]
    for module in MODULES:
        parts.append(f"## {module}\n")
        parts += [f"::: {module}.{name}\n" for name in importlib.import_module(module).__all__]
    return "\n".join(parts)


def copy_pages(root: Path, pages: Path) -> None:
    """Copy all pages, and the files they link to, into a new folder."""
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    for page in (*root.glob("*.md"), root / "LICENSE"):
        shutil.copy(page, pages)
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", *(ONLY_DATA if folder == "docs" else ()))
        shutil.copytree(root / folder, pages / folder, ignore=ignored)
    (pages / "api.md").write_text(api_page(), encoding="utf-8")


def main() -> int:
    """Make the site; return the exit code of mkdocs."""
    copy_pages(ROOT, ROOT / "build" / "pages")
    # The theme prints an advertisement for its successor at every build.
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # noqa: TID251
    return subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet"], cwd=ROOT, env=quiet).returncode


if __name__ == "__main__":
    sys.exit(main())
