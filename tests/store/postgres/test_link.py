"""A connection that is let go of in the middle of its work."""

import asyncio
import gc

import pytest

from tests.support.postgres import Server, database_of
from tests.support.until import eventually
from whereby_trigger.store.postgres.connection import Connection, ManagedConnection, address_of

pytestmark = pytest.mark.anyio

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND datname = current_database()"


async def test_work_that_is_cut_off_is_nothing_for_asyncio_to_complain_of(
    postgres: Server, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def sleep(connection: Connection) -> None:
        await connection.execute("SELECT pg_sleep(30)")

    async def is_asleep() -> bool:
        return await asyncio.to_thread(postgres.run, SLEEPING, database_of(url)) == "1"

    link = ManagedConnection(address_of(url), 60)
    working = asyncio.create_task(link.run(sleep))
    await eventually(is_asleep)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await link.close()
    gc.collect()
    assert caplog.text == ""
