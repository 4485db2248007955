"""Row 20: bodies at the limit, over it, far over it, and with a wrong length."""

from pathlib import Path

import pytest

from reliability.rows import bodies
from reliability.stores import Stores

pytestmark = pytest.mark.anyio


async def test_what_is_too_large_is_refused_without_being_held_in_memory(tmp_path: Path, stores: Stores) -> None:
    result = await bodies.run(tmp_path, stores)
    assert result.problems == []
