"""Row 19: sockets that never finish their request, and good traffic beside them."""

from pathlib import Path

import pytest

from reliability.rows import slowloris
from reliability.stores import SqliteStores

pytestmark = pytest.mark.anyio


async def test_slow_sockets_are_closed_within_10_s_and_good_traffic_does_not_feel_them(
    tmp_path: Path, files: SqliteStores
) -> None:
    result = await slowloris.run(tmp_path, files, sockets=300)
    assert result.problems == []
    assert float(result.figures["closed after (s), first"]) > 5
