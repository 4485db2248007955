"""Server settings that change while replicas are running: what is acknowledged still survives."""

import asyncio
import logging
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival
from tests.support.postgres import Server
from tests.support.until import eventually
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query, Store
from whereby_trigger.store.postgres import store as postgres_store

pytestmark = pytest.mark.anyio

FEW = 40
LAZY = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
"""Without a sync per commit, syncs are so rare that a crash loses what was committed meanwhile."""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Yield a server that no other test has started with settings that a reload would not change."""
    with Server(quick=True) as server:
        yield server


@pytest.fixture
def reloaded(own_server: Server) -> Iterator[Server]:
    """Yield a server, and reset its settings after the test."""
    yield own_server
    own_server.revive()
    own_server.run("ALTER SYSTEM RESET ALL")
    own_server.run("SELECT pg_reload_conf()")


@pytest.fixture
def url(own_server: Server) -> str:
    return own_server.create_database()


@pytest.mark.parametrize("options", ["", "?pooler=yes"])
async def test_a_crash_loses_nothing_acknowledged_though_synchronous_commit_was_turned_off_meanwhile(
    reloaded: Server, url: str, opened: Replicas, options: str
) -> None:
    store = await opened(url + options)
    await store.add(arrival("before"))
    reloaded.reload(**LAZY)
    await eventually(lambda: is_off(reloaded))
    for number in range(FEW):
        await store.add(arrival(str(number)))
    reloaded.kill()
    reloaded.start()
    await eventually(lambda: reads(store))
    assert len(await store.find(Query())) == 1 + FEW


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_is_no_longer_durable_is_told_in_the_log_and_by_the_ping_until_it_is_again(
    reloaded: Server, url: str, opened: Replicas, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    caplog.set_level("INFO")
    store = await opened(url)
    await store.renew(30.0)
    await store.ping(0.0)
    reloaded.reload(**{setting: "off"})
    await eventually(lambda: refuses(store, f"{setting}=off"))
    assert await store.renew(30.0)
    assert caplog.text.count(f"{setting}=off") == 1
    reloaded.reload(**{setting: ""})
    await eventually(lambda: takes(store))
    assert "is durable again" in caplog.text


async def test_a_log_handler_that_fails_to_tell_that_a_server_is_not_durable_keeps_no_lease_from_renewal(
    reloaded: Server, url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, fail, loop = logging.Handler(), Mock(side_effect=ConnectionError), asyncio.get_running_loop()
    store = await opened(url)
    reloaded.reload(fsync="off")
    monkeypatch.setattr(handler, "emit", fail)
    monkeypatch.setattr(postgres_store.logger, "handlers", [handler])
    tests_own = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: None)

    async def is_told() -> bool:
        assert await store.renew(30.0)
        return fail.called

    await eventually(is_told)
    loop.set_exception_handler(tests_own)


async def is_off(server: Server) -> bool:
    """Return True if a new session does not wait for the disk."""
    return await asyncio.to_thread(server.run, "SHOW synchronous_commit") == "off"


async def reads(store: Store) -> bool:
    try:
        return bool(await store.find(Query(limit=1)))
    except StoreError:
        return False


async def refuses(store: Store, why: str) -> bool:
    """Renew the lease; return True if the store then says for this reason that it cannot be trusted."""
    await store.renew(30.0)
    try:
        await store.ping(0.0)
    except StoreError as error:
        return why in str(error)
    return False


async def takes(store: Store) -> bool:
    await store.renew(30.0)
    try:
        await store.ping(0.0)
    except StoreError:
        return False
    return True
