"""The base of all rows: without a fault, everything is stored, decided and emitted once."""

from pathlib import Path

import pytest

from reliability.rows import kills
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_all_holds_under_load(tmp_path: Path, stores: Stores) -> None:
    result = await kills.undisturbed(tmp_path, stores, acknowledged=300)
    assert result.problems == []
    assert result.figures["emitted again after a death"] == 0
