"""Row 1: kill -9 of the receiver at a random point, under load."""

from pathlib import Path

import pytest

from reliability.rows import kills
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_nothing_acknowledged_is_lost_and_nothing_decided_twice(tmp_path: Path, stores: Stores) -> None:
    result = await kills.run(tmp_path, stores, kills=15, acknowledged_per_life=20, at_least=150)
    assert result.problems == []
