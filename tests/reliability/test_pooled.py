"""Row 10: a PgBouncer in transaction mode is in front of the database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reliability.rows import kills
from reliability.stores import PostgresStores
from reliability.tools import ToolMissing
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Server

pytestmark = pytest.mark.anyio


class PooledStores(PostgresStores):
    """Create databases that are reached through a PgBouncer."""

    def __init__(self, server: Server, bouncer: PgBouncer) -> None:
        super().__init__(server)
        self._bouncer = bouncer

    def new(self, folder: Path) -> str:
        return self._bouncer.through(super().new(folder))


@pytest.fixture
def bouncer(postgres: Server) -> Iterator[PgBouncer]:
    try:
        bouncer = PgBouncer(postgres)
    except ToolMissing as missing:
        pytest.skip(str(missing))
    with bouncer:
        yield bouncer


async def test_all_holds_through_a_pooler(tmp_path: Path, postgres: Server, bouncer: PgBouncer) -> None:
    result = await kills.run_undisturbed(tmp_path, PooledStores(postgres, bouncer), acknowledged=200)
    assert result.problems == []
