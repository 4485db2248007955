"""Replicas that start at the same time on a database that has no schema yet."""

import asyncio

import pytest

from tests.support.connecting import connected
from tests.support.until import eventually
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.postgres.opening import migrate

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def test_one_waits_for_the_others_migration_and_finds_nothing_left_to_do(url: str) -> None:
    async with connected(url) as first, connected(url) as looking:
        await first.execute("BEGIN")
        assert await migrate(first, "here") != []
        second = asyncio.create_task(PostgresStore(url).migrate())
        await eventually(lambda: looking.fetchval(WAITING))
        await first.execute("COMMIT")
        assert await second == []
