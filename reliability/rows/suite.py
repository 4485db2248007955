"""Rows whose full dose is in the ordinary test run already: the tests are run, and what they say is kept."""

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from reliability.process import ROOT
from reliability.result import Figures, Result
from reliability.stores import Stores
from whereby_trigger.config import foreign_environment

PASSED = re.compile(r"(\d+) passed")
SKIPPED = re.compile(r"(\d+) skipped")
WITHOUT_LIMIT = ("-o", "faulthandler_timeout=0")
"""A larger dose may take longer than a test of the ordinary run ever does."""


async def run(
    folder: Path, stores: Stores, *, tests: tuple[str, ...], dose: Figures, env: Mapping[str, str] | None = None
) -> Result:
    """Run tests of the suite, all of which must pass, none skipped; `env` is how a test is told of a larger dose."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *WITHOUT_LIMIT, *tests),
        cwd=ROOT,
        env={**foreign_environment(), **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode(errors="replace")
    passed, skipped = PASSED.search(said), SKIPPED.search(said)
    problems = [] if process.returncode == 0 and skipped is None else [said]
    return Result({**dose, "tests passed": int(passed[1]) if passed else 0}, problems)
