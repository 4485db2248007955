"""Row 18: the disk is full, and then it is not."""

from pathlib import Path

import pytest

from reliability.rows import disk_full
from reliability.stores import SqliteStores

pytestmark = pytest.mark.anyio


async def test_a_full_disk_is_answered_503_and_recovered_from_unaided(tmp_path: Path, files: SqliteStores) -> None:
    result = await disk_full.run(tmp_path, files, doses=20)
    assert result.problems == []
    assert result.figures["refused with 503"] == 80
