"""Row 25: mutations of our own code, each of which a test of this suite catches.

Those of the PostgreSQL store start a server each, for which `make reliability ROWS=25` has the time.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from reliability import ROOT
from reliability.mutants import IN_POSTGRES, MUTANTS
from reliability.rows import suite
from reliability.tools import ToolMissing

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in IN_POSTGRES])
async def test_a_mutation_is_caught(name: str) -> None:
    try:
        assert await suite.why_not_caught(name, MUTANTS[name]) == []
    except ToolMissing as missing:
        pytest.skip(str(missing))


EACH_PUT_IN = """if True:
    import os
    from reliability.mutants import MUTANTS
    for name, mutant in MUTANTS.items():
        if os.fork() == 0:
            mutant.put_in()
            os._exit(0)
        if os.wait()[1] != 0:
            print(name)
"""


def test_every_mutation_finds_what_it_changes() -> None:
    told = subprocess.run([sys.executable, "-c", EACH_PUT_IN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("", "")


async def test_every_mutation_names_a_test_that_is_there() -> None:
    code, said = await suite.run_tests("--collect-only", *{mutant.caught_by for mutant in MUTANTS.values()})
    assert code == 0, said


async def test_a_mutation_whose_test_needs_a_program_that_is_missing_does_not_count_as_not_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="strace is not installed"):
        await suite.why_not_caught("without fsync", MUTANTS["without fsync"])
