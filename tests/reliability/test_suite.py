"""Row 25: mutations of our own code, each of which a test of this suite catches.

Those of the PostgreSQL store start a server each, for which `make reliability ROWS=25` has the time.
"""

from pathlib import Path

import pytest

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


async def test_a_mutation_whose_test_needs_a_program_that_is_missing_does_not_count_as_not_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="strace is not installed"):
        await suite.why_not_caught("without fsync", MUTANTS["without fsync"])
