"""Row 35: crowds of clients without a signature, and signed traffic beside them."""

from pathlib import Path

import pytest

from reliability.rows import unauthenticated
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_strangers_take_little_memory_and_keep_no_signed_delivery_out(tmp_path: Path, stores: Stores) -> None:
    result = await unauthenticated.run(tmp_path, stores, sockets=100, seconds=1.6, p99_within=4.0, warm_up=25)
    assert result.problems == []
