"""Rows whose full dose is part of the ordinary test run; and row 25, mutations of our own code that the tests catch."""

import asyncio
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from reliability import ROOT
from reliability.conditions import MUTANT
from reliability.mutants import MUTANTS, Mutant
from reliability.row import Figures, Result
from reliability.stores import Stores
from reliability.tools import ToolMissing
from tests.support.pgbouncer import program
from whereby_trigger.config import foreign_environment

PASSED = re.compile(r"(\d+) passed")
SKIPPED = re.compile(r"(\d+) skipped")
WHY_SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+:\d+: (.+)$", re.MULTILINE)
WITHOUT_LIMIT = ("-o", "faulthandler_timeout=0")
"""A larger dose may take longer than a test of the ordinary run ever does."""

STORE_TESTS = ("tests/store", "--ignore=tests/store/sqlite", "--ignore=tests/store/postgres")
ALL_PASSED, SOME_FAILED = 0, 1
"""Exit codes of pytest."""

MUTATION_WITHIN = 600.0


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


async def mutate(folder: Path, stores: Stores) -> Result:
    """Run each mutant's test without it, which must pass, and with it, which must fail for the right reason.

    Raises ToolMissing if a test needs a program that is not installed.
    """
    code, said = await _test({mutant.caught_by for mutant in MUTANTS.values()}, "")
    problems = [] if code == ALL_PASSED else [f"without any mutation the tests do not pass:\n{said}"]
    for name, mutant in MUTANTS.items():
        problems += await why_not_caught(name, mutant)
    caught = len(MUTANTS) - len(problems)
    return Result({"mutations": len(MUTANTS), "caught": caught}, problems)


async def why_not_caught(name: str, mutant: Mutant) -> list[str]:
    """Run a mutant's test with the mutation; return what is wrong if it does not fail as it must.

    Raises ToolMissing if the test needs a program that is not installed.
    """
    code, said = await _test({mutant.caught_by}, name)
    if code == ALL_PASSED:
        return [f"{name}: {mutant.caught_by} passes all the same"]
    if code != SOME_FAILED or mutant.complaint not in said:
        return [f"{name}: {mutant.caught_by} does not say {mutant.complaint!r} (exit code {code}):\n{said}"]
    return []


async def _test(tests: Iterable[str], mutant: str) -> tuple[int, str]:
    # The other installed plugins take as long to import as most of these tests take to run.
    env = {MUTANT: mutant, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    async with asyncio.timeout(MUTATION_WITHIN):
        code, said = await run_tests("-p", "anyio", "-p", "reliability.mutants", "-rs", *sorted(tests), env=env)
    # A skipped test has neither caught the mutant nor missed it.
    if skipped := WHY_SKIPPED.search(said):
        raise ToolMissing(skipped[1])
    return code, said
