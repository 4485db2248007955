"""Rows whose full dose is part of the ordinary test run: the tests are run, and their output is kept."""

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from reliability.process import ROOT
from reliability.row import Figures, Result
from reliability.stores import Stores
from tests.support.pgbouncer import program
from whereby_trigger.config import foreign_environment

PASSED = re.compile(r"(\d+) passed")
SKIPPED = re.compile(r"(\d+) skipped")
WITHOUT_LIMIT = ("-o", "faulthandler_timeout=0")
"""A larger dose may take longer than a test of the ordinary run ever does."""

STORE_TESTS = ("tests/store", "--ignore=tests/store/sqlite", "--ignore=tests/store/postgres")


async def run(
    folder: Path, stores: Stores, *, tests: tuple[str, ...], dose: Figures, env: Mapping[str, str] | None = None
) -> Result:
    """Run tests of the suite, all of which must pass, none skipped; `env` sets a larger dose for a test."""
    code, said = await run_tests(*WITHOUT_LIMIT, *tests, env=env)
    passed, skipped = PASSED.search(said), SKIPPED.search(said)
    problems = [] if code == 0 and skipped is None else [said]
    return Result({**dose, "tests passed": int(passed[1]) if passed else 0}, problems)


async def run_tests(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run pytest, and return its exit code and output; `env` is added to an environment without settings."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *arguments),
        cwd=ROOT,
        env=foreign_environment() | dict(env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode(errors="replace")


async def pooled(folder: Path, stores: Stores) -> Result:
    """Run row 10, the conformance suite of stores through a PgBouncer; raises ToolMissing if there is none."""
    program()
    return await run(folder, stores, tests=STORE_TESTS, dose={}, env={"STORE_KINDS": "pgbouncer"})
