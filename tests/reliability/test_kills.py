"""Row 1: kill -9 of the receiver at a random point, under load."""

from pathlib import Path

import pytest

from reliability.rows import kills
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_nothing_acknowledged_is_lost_and_nothing_decided_twice(tmp_path: Path, stores: Stores) -> None:
    # A life of PostgreSQL's takes longer, mostly to wait for the lease of the one before.
    times = 6 if stores.quick_lease else 16
    result = await kills.run(tmp_path, stores, kills=times, acknowledged_per_life=20, at_least=times * 10)
    assert result.problems == []
