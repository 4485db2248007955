"""Rows 1 and 2, and the base of all rows: a receiver without faults, killed at a random point, and at each boundary."""

from pathlib import Path

import pytest

from reliability.boundaries import BOUNDARIES
from reliability.rows import kills
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_all_holds_under_load(tmp_path: Path, stores: Stores) -> None:
    result = await kills.run_undisturbed(tmp_path, stores, acknowledged=300)
    assert result.problems == []
    assert result.figures["emitted again after a death"] == 0


async def test_nothing_acknowledged_is_lost_and_nothing_decided_twice(tmp_path: Path, stores: Stores) -> None:
    result = await kills.run(tmp_path, stores, kills=15, acknowledged_per_life=20, at_least=150)
    assert result.problems == []


@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_all_holds_at_a_boundary(tmp_path: Path, stores: Stores, boundary: str) -> None:
    deaths = 1 if stores.quick_lease else 2
    result = await kills.run_at_boundaries(tmp_path, stores, deaths=deaths, boundaries=(boundary,))
    assert result.problems == []
