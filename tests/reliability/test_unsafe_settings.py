"""Row 4: a configuration that would not keep what it acknowledged is refused, with the reason."""

from pathlib import Path

import pytest

from reliability.rows import unsafe_settings
from reliability.rows.unsafe_settings import CASES
from reliability.stores import PostgresStores
from tests.support.postgres import Server

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("case", CASES)
async def test_an_unsafe_configuration_is_refused(tmp_path: Path, case: str) -> None:
    assert await unsafe_settings.why_not_refused(tmp_path, CASES[case]) == []


async def test_a_write_ahead_log_that_was_switched_off_is_on_again(tmp_path: Path) -> None:
    assert await unsafe_settings.why_not_repaired(tmp_path) == []


@pytest.mark.parametrize("case", unsafe_settings.DATABASE_CASES)
async def test_a_database_that_does_not_wait_for_the_disk_is_refused(
    tmp_path: Path, postgres: Server, case: str
) -> None:
    stores = PostgresStores(postgres)
    assert await unsafe_settings.why_database_not_refused(tmp_path, stores, unsafe_settings.DATABASE_CASES[case]) == []
