"""Row 10: a PgBouncer in transaction mode is in front of the database."""

from pathlib import Path

import pytest

from reliability.rows import kills
from reliability.stores import PostgresStores
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


async def test_all_holds_through_a_pooler(tmp_path: Path, postgres: Server, bouncer: PgBouncer) -> None:
    result = await kills.run_undisturbed(tmp_path, PooledStores(postgres, bouncer), acknowledged=200)
    assert result.problems == []
