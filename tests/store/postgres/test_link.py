"""A connection: how it is opened to one of several hosts, and dropped in the middle of its work."""

import asyncio
import contextlib
import gc
import socket

import asyncpg
import pytest

from tests.support.postgres import Server, database_of
from tests.support.until import eventually
from whereby_trigger.store.postgres.address import address_of
from whereby_trigger.store.postgres.connection import CONNECT_WITHIN, NEXT_HOST_AFTER, Connection, ManagedConnection

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


async def backend(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def test_a_host_that_is_silent_keeps_nobody_from_the_next_and_is_not_asked_first_again(
    postgres: Server, url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        several = url.replace("@", f"@127.0.0.1:{silent.getsockname()[1]},")
        link = ManagedConnection(address_of(several), 60)
        async with asyncio.timeout(CONNECT_WITHIN - 0.5):
            first = await link.run(backend)
        postgres.run(f"SELECT pg_terminate_backend({first}, 5000)")
        async with asyncio.timeout(NEXT_HOST_AFTER):
            while True:
                with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    assert await link.run(backend) != first
                    break
        await link.close()
