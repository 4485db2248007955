"""A spill in front of a PostgreSQL with one locked row: the database accepts all others, so nothing is spilled."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.arrivals import ROOM, arrival
from tests.support.connecting import connected
from tests.support.postgres import Server, database_of
from tests.support.until import eventually
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Unread
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.spill import SpillStore
from whereby_trigger.store.spill_file import SpillFile

pytestmark = pytest.mark.anyio

SPILL_AFTER = 1.0
READ_ONLY = "ALTER DATABASE {0} SET default_transaction_read_only = on"
WRITABLE = "ALTER DATABASE {0} RESET default_transaction_read_only"
DISCONNECT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{0}'"


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.create_database()


@pytest.fixture
async def spill(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SpillStore]:
    monkeypatch.setattr("whereby_trigger.store.spill.SPILL_AFTER", SPILL_AFTER)
    store, spill_file = PostgresStore(url), SpillFile(f"sqlite:///{tmp_path}/spill.db")
    spill = SpillStore(store, spill_file, Unread())
    await spill.open(lambda: None)
    yield spill
    await spill.close()


async def test_a_delivery_of_a_locked_row_waits_alone(url: str, spill: SpillStore) -> None:
    await spill.add(arrival("locked"))
    async with connected(url) as holding:
        await holding.execute("BEGIN; SELECT FROM whereby_trigger.webhooks FOR UPDATE")
        held_up = asyncio.ensure_future(spill.add(arrival("locked")))
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(SPILL_AFTER + 0.2, passed.set)
        others = 0
        while not passed.is_set():
            assert not (await spill.add(arrival(f"other {others}", room=ROOM))).spilled
            others += 1
        assert not held_up.done()
        await holding.execute("COMMIT")
        assert not (await held_up).spilled
    assert spill.length == 0


async def test_what_was_spilled_while_the_database_was_read_only_reaches_it_afterwards(
    postgres: Server, url: str, spill: SpillStore
) -> None:
    name = database_of(url)
    await spill.add(arrival("before"))
    postgres.run(READ_ONLY.format(name))
    postgres.run(DISCONNECT.format(name))
    assert (await spill.add(arrival("meanwhile"))).spilled
    postgres.run(WRITABLE.format(name))
    await eventually(lambda: spill.settled and not spill.length)
    assert not (await spill.add(arrival("after"))).spilled


async def test_a_database_that_takes_deliveries_and_would_not_keep_them_is_told_by_the_ping(spill: SpillStore) -> None:
    await spill.ping(0.0)
    spill._store._unsafe = "fsync=off"  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="fsync=off"):
        await spill.ping(0.0)
