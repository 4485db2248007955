"""A database that a newer program has migrated: this one continues if it is admitted, and is refused if not."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import decided, record
from tests.support.postgres import Server, database_of
from tests.support.rooms import ask, take_one
from whereby_trigger.errors import StoreError
from whereby_trigger.store import State
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.postgres.opening import SCHEMA

pytestmark = pytest.mark.anyio

EXPAND = """
ALTER TABLE whereby_trigger.webhooks ADD COLUMN later text, ADD COLUMN more integer NOT NULL DEFAULT 7;
ALTER TABLE whereby_trigger.rooms ADD COLUMN later text;
ALTER TABLE whereby_trigger.replicas ADD COLUMN later text;
CREATE INDEX webhooks_later ON whereby_trigger.webhooks (later);
"""


def migrated_by_newer(postgres: Server, url: str, *, admits: int) -> None:
    """Apply a migration as the next program would, which adds something and removes nothing."""
    version = f"UPDATE whereby_trigger.version SET schema = {SCHEMA + 1}, admits = {admits};"
    postgres.run(f"BEGIN; {EXPAND} {version} COMMIT", database_of(url))


@pytest.mark.parametrize("options", ["", "?pooler=yes"])
async def test_a_replica_that_runs_keeps_working_through_the_migration(
    postgres: Server, url: str, opened: Replicas, options: str
) -> None:
    store = await opened(url + options)
    await decided(store, "before")
    migrated_by_newer(postgres, url, admits=1)
    await decided(store, "after")
    await ask(store)
    await take_one(store)
    assert (await record(store, "before")).state is State.FIRED
    assert (await record(store, "after")).state is State.FIRED
    assert await store.take_over() == 0
    assert await store.renew(30)
    assert await store.prune(2e9) == 2


async def test_one_that_starts_later_is_admitted_and_migrates_nothing(
    postgres: Server, url: str, opened: Replicas
) -> None:
    await PostgresStore(url).migrate()
    migrated_by_newer(postgres, url, admits=SCHEMA)
    assert await PostgresStore(url).migrate() == []
    await decided(await opened(url), "one")
    reading = PostgresStore(url)
    await reading.open_readonly()
    assert (await record(reading, "one")).state is State.FIRED
    await reading.close()


async def test_one_that_is_not_admitted_is_refused_and_told_to_upgrade(
    postgres: Server, url: str, opened: Replicas
) -> None:
    await PostgresStore(url).migrate()
    migrated_by_newer(postgres, url, admits=SCHEMA + 1)
    store = PostgresStore(url)
    for use in (lambda: opened(url), store.open_readonly, store.migrate):
        with pytest.raises(StoreError, match=f"this one knows {SCHEMA}: upgrade whereby-trigger, or use another"):
            await use()
