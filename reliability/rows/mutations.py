"""Row 25: mutations of our own code, each of which a test of this suite must catch."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from reliability.mutant import VARIABLE, Mutant
from reliability.mutants import MUTANTS
from reliability.row import Result
from reliability.rows.suite import run_tests
from reliability.stores import Stores
from reliability.tools import ToolMissing

PASSED, FAILED = 0, 1
SKIPPED = re.compile(r"^SKIPPED \[\d+\] \S+:\d+: (.+)$", re.MULTILINE)
TEST_WITHIN = 600.0


async def run(folder: Path, stores: Stores, *, mutants: Mapping[str, Mutant] = MUTANTS) -> Result:
    """Run each mutant's test without it, which must pass, and with it, which must fail for the right reason.

    Raises ToolMissing if a test needs a program that is not installed.
    """
    code, said = await _test({mutant.caught_by for mutant in mutants.values()}, "")
    problems = [] if code == PASSED else [f"without any mutation the tests do not pass:\n{said}"]
    for name, mutant in mutants.items():
        problems += await why_not_caught(name, mutant)
    caught = len(mutants) - len(problems)
    return Result({"mutations": len(mutants), "caught": caught}, problems)


async def why_not_caught(name: str, mutant: Mutant) -> list[str]:
    """Run a mutant's test with the mutation; return what is wrong if it does not fail as it must.

    Raises ToolMissing if the test needs a program that is not installed.
    """
    code, said = await _test({mutant.caught_by}, name)
    if code == PASSED:
        return [f"{name}: {mutant.caught_by} passes all the same"]
    if code != FAILED or mutant.complaint not in said:
        return [f"{name}: {mutant.caught_by} does not say {mutant.complaint!r} (exit code {code}):\n{said}"]
    return []


async def _test(tests: Iterable[str], mutant: str) -> tuple[int, str]:
    # The other installed plugins take as long to import as most of these tests take to run.
    env = {VARIABLE: mutant, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    async with asyncio.timeout(TEST_WITHIN):
        code, said = await run_tests("-p", "anyio", "-p", "reliability.mutants", "-rs", *sorted(tests), env=env)
    # A skipped test has neither caught the mutant nor missed it.
    if skipped := SKIPPED.search(said):
        raise ToolMissing(skipped[1])
    return code, said
