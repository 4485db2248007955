"""Row 4: a configuration that would not keep what it acknowledged is refused, with the reason."""

from pathlib import Path

import pytest

from reliability.rows import unsafe_settings
from reliability.rows.unsafe_settings import CASES

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("case", CASES)
async def test_an_unsafe_configuration_is_refused(tmp_path: Path, case: str) -> None:
    assert await unsafe_settings.why_not_refused(tmp_path, CASES[case]) == []


async def test_a_write_ahead_log_that_was_switched_off_is_on_again(tmp_path: Path) -> None:
    assert await unsafe_settings.why_not_repaired(tmp_path) == []
