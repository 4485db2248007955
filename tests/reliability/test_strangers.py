"""Rows 19 and 35: clients without a signature, and good traffic beside them."""

from pathlib import Path

import pytest

from reliability.rows import strangers
from reliability.stores import SqliteStores, Stores

pytestmark = pytest.mark.anyio


async def test_slow_sockets_are_closed_within_10_s_and_good_traffic_does_not_feel_them(
    tmp_path: Path, files: SqliteStores
) -> None:
    result = await strangers.run_slow(tmp_path, files, sockets=300)
    assert result.problems == []
    assert float(result.figures["closed after (s), first"]) > 5


async def test_strangers_take_little_memory_and_keep_no_signed_delivery_out(tmp_path: Path, stores: Stores) -> None:
    result = await strangers.run_crowds(tmp_path, stores, sockets=100, seconds=1.6, p99_within=4.0, warm_up=25)
    assert result.problems == []
