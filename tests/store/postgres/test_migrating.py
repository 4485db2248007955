"""A migration beside replicas at work: it waits for a table only as long as they have patience."""

import asyncio

import asyncpg
import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival
from tests.support.postgres import Server, database_of
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store.postgres import PostgresStore, migrations

pytestmark = pytest.mark.anyio

NEXT = migrations.SCHEMA + 1
EXPAND = "ALTER TABLE whereby_trigger.webhooks ADD COLUMN later text;"
INDEX = "CREATE INDEX IF NOT EXISTS webhooks_type ON whereby_trigger.webhooks (type);"


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this program be the next one, which has a migration more."""
    known = migrations.scripts()
    monkeypatch.setattr(migrations, "SCHEMA", NEXT)
    monkeypatch.setattr(migrations, "scripts", lambda: known | {NEXT: EXPAND + INDEX})


@pytest.fixture
async def store_of_this_version(url: str, opened: Replicas) -> PostgresStore:
    store = await opened(url)
    assert isinstance(store, PostgresStore)
    return store


async def test_it_gives_up_a_table_that_is_locked_for_long_before_a_delivery_would(
    url: str, store_of_this_version: PostgresStore, next_version: None
) -> None:
    reading = await asyncpg.connect(url)
    try:
        await reading.execute("BEGIN; SELECT count(*) FROM whereby_trigger.webhooks")
        newer = asyncio.ensure_future(PostgresStore(url).migrate())
        await store_of_this_version.add(arrival("meanwhile"))
        with pytest.raises(StoreUnavailable, match="another transaction has locked what must be changed"):
            await newer
        await reading.execute("COMMIT")
    finally:
        await reading.close()
    assert await PostgresStore(url).migrate() == [NEXT]
    assert not (await store_of_this_version.add(arrival("after"))).duplicate


async def test_an_index_that_was_made_ahead_without_a_lock_is_found(
    postgres: Server, url: str, store_of_this_version: PostgresStore, next_version: None
) -> None:
    postgres.run(INDEX.replace("INDEX", "INDEX CONCURRENTLY"), database_of(url))
    assert await PostgresStore(url).migrate() == [NEXT]
    assert not (await store_of_this_version.add(arrival("after"))).duplicate
