"""Rows 5 and 6, in small doses: everything is answered and decided under a load, and in a store that is full."""

from pathlib import Path

import pytest

from reliability.rows import steady_load
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_a_load_and_a_burst_are_answered_with_200_and_decided(tmp_path: Path, stores: Stores) -> None:
    result = await steady_load.run(tmp_path, stores, rate=50, seconds=2, burst=100)
    # The speed depends on the machine, and on its other work.
    assert [problem for problem in result.problems if "p99" not in problem and "took" not in problem] == []


async def test_a_full_store_takes_more_and_loses_nothing(tmp_path: Path, stores: Stores) -> None:
    result = await steady_load.run_soak(tmp_path, stores, inbox=3000, rate=50, seconds=3)
    assert [problem for problem in result.problems if "p99" not in problem and "memory" not in problem] == []
