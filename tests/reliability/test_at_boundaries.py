"""Row 2: the receiver is killed at each boundary that a webhook passes."""

from pathlib import Path

import pytest

from reliability.boundaries import BOUNDARIES
from reliability.rows import at_boundaries
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("boundary", BOUNDARIES)
async def test_all_holds(tmp_path: Path, stores: Stores, boundary: str) -> None:
    result = await at_boundaries.run(tmp_path, stores, deaths=1 if stores.quick_lease else 2, boundaries=(boundary,))
    assert result.problems == []
