"""The documentation's site: it has every page, and a link that leads nowhere fails it."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.site import FOLDERS, MODULES, api_page
from tests.support.process import clean_environment

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "mkdocs.yml"

needs_mkdocs = pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed: make docs")


class Loader(yaml.SafeLoader):
    """Read mkdocs.yml without the Python objects that it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def read() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(CONFIG.read_text(encoding="utf-8"), Loader)  # noqa: S506
    return found


def pages(nav: object) -> Iterator[str]:
    """Yield the pages of a navigation, at any depth."""
    match nav:
        case str(page):
            yield page
        case dict(sections):
            for below in sections.values():
                yield from pages(below)
        case list(entries):
            for entry in entries:
                yield from pages(entry)


def test_the_navigation_of_the_site_has_every_page_once() -> None:
    listed = list(pages(read()["nav"]))
    there = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md")]
    there += [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")]
    assert sorted(listed) == sorted([*there, "api.md"])


def test_the_site_is_strict_about_links_anchors_and_pages_outside_the_navigation() -> None:
    config = read()
    assert config["strict"] is True
    assert set(config["validation"].values()) == {"warn"}
    assert config["validation"].keys() == {"omitted_files", "absolute_links", "unrecognized_links", "anchors"}


def test_the_page_of_docstrings_has_every_public_name() -> None:
    for module in MODULES:
        for name in __import__(module, fromlist=["__all__"]).__all__:
            assert f"\n::: {module}.{name}\n" in api_page()


@needs_mkdocs
def test_a_dead_link_and_a_page_outside_the_navigation_fail_the_site(tmp_path: Path) -> None:
    pages = tmp_path / "build" / "pages"
    pages.mkdir(parents=True)
    (pages / "README.md").write_text("# One\n\n[nowhere](other.md), [no such heading](README.md#two)\n")
    (pages / "outside.md").write_text("# Outside\n")
    config = CONFIG.read_text(encoding="utf-8").partition("\nplugins:")[0] + "\nplugins: []\nnav: [README.md]\n"
    (tmp_path / "mkdocs.yml").write_text(config)
    run = [sys.executable, "-m", "mkdocs", "build"]
    done = subprocess.run(run, cwd=tmp_path, env=clean_environment({}), capture_output=True, text=True)
    assert done.returncode != 0
    assert all(said in done.stderr for said in ("other.md", "#two", "outside.md")), done.stderr
