"""Row 31: files beside the store's file are removed, replaced or shared."""

from pathlib import Path

import pytest

from reliability.rows import journal_lost
from reliability.stores import SqliteStores

pytestmark = pytest.mark.anyio


async def test_nothing_acknowledged_is_lost_with_what_lies_beside_the_file(tmp_path: Path, files: SqliteStores) -> None:
    result = await journal_lost.run(tmp_path, files, doses=1, a_life=7)
    assert result.problems == []
    assert result.figures["faults"] == 7
