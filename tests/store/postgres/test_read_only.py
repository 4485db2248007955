"""A database that refuses writes for a while: it is left, asked again, and used as soon as it accepts them."""

import pytest

from reliability.link import Link
from tests.store.conftest import Replicas
from tests.support.arrivals import arrival, decision, record
from tests.support.postgres import Server, database_of
from tests.support.rooms import ask
from tests.support.until import eventually
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, State, Store
from whereby_trigger.store.postgres import PostgresStore

pytestmark = pytest.mark.anyio

READ_ONLY = "ALTER DATABASE {0} SET default_transaction_read_only = on"
WRITABLE = "ALTER DATABASE {0} RESET default_transaction_read_only"
DISCONNECT = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{0}'"
BACK_WITHIN = 5.0

each_way = pytest.mark.parametrize("options", ["", "?pooler=yes"])


async def works(store: Store) -> bool:
    """Return True if every connection of a replica writes and reads."""
    try:
        await store.take_over()
        return await store.renew(30.0) and bool(await store.find(Query(limit=1)))
    except StoreUnavailable:
        return False


@each_way
async def test_a_replica_goes_on_by_itself_once_its_database_is_no_longer_read_only(
    postgres: Server, url: str, opened: Replicas, options: str
) -> None:
    store, name = await opened(url + options), database_of(url)
    first = await store.add(arrival("first"))
    postgres.run(READ_ONLY.format(name))
    postgres.run(DISCONNECT.format(name))
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.renew(30.0)
    adding, deciding = store.add(arrival("second")), store.decide(decision(first.seq, "first"))
    postgres.run(WRITABLE.format(name))
    assert not (await adding).duplicate
    assert await deciding
    await eventually(lambda: works(store), BACK_WITHIN)
    assert (await ask(store)).new
    assert (await record(store, "first")).state is State.FIRED


@each_way
async def test_an_address_that_leads_to_a_standby_for_a_while_costs_nothing_but_the_while(
    postgres: Server, url: str, opened: Replicas, options: str
) -> None:
    await (await opened(url)).add(arrival("before"))
    with postgres.standby() as standby:
        async with Link(postgres.port) as link:
            store = await opened(link.through(url) + options)
            assert await works(store)
            link.lead_to(standby.port)
            with pytest.raises(StoreUnavailable):
                await store.renew(30.0)
            with pytest.raises(StoreUnavailable, match="read-only"):
                await store.renew(30.0)
            await eventually(lambda: refuses_to_read(store))
            adding = store.add(arrival("second"))
            link.lead_to(postgres.port)
            assert not (await adding).duplicate
            await eventually(lambda: works(store), BACK_WITHIN)


async def refuses_to_read(store: Store) -> bool:
    """Return True if a replica reads nothing, rather than what a standby still shows."""
    try:
        await store.find(Query())
    except StoreUnavailable as error:
        return "read-only" in str(error)
    return False


async def test_of_several_hosts_the_one_that_takes_writes_is_used(postgres: Server, url: str, opened: Replicas) -> None:
    await PostgresStore(url).migrate()
    with postgres.standby() as standby:
        primary = f"127.0.0.1:{postgres.port}"
        store = await opened(url.replace(primary, f"127.0.0.1:{standby.port},{primary}"))
        assert not (await store.add(arrival("one"))).duplicate
