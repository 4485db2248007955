"""Row 38: `forget`, `db prune` and `events export` are killed with -9 at any step; the next call finishes."""

from pathlib import Path

import pytest

from reliability.rows import killed_commands
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("call", killed_commands.CALLS)
async def test_all_holds(tmp_path: Path, stores: Stores, call: str) -> None:
    result = await killed_commands.run(tmp_path, stores, kills=2, calls=(call,))
    assert result.problems == []
    assert result.figures[f"{call}: killed"] == 2
