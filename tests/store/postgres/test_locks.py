"""Locks are taken in one order, and never held for longer than others wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, arrival, decided, decision, record
from tests.support.connecting import connected
from tests.support.rooms import ask, session, take_one
from tests.support.until import eventually
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, RoomState, State
from whereby_trigger.store.postgres import rooms
from whereby_trigger.store.postgres.address import address_of
from whereby_trigger.store.postgres.connection import Connection, ManagedConnection, transaction

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
LOCKED = "SELECT id FROM whereby_trigger.webhooks WHERE id = $1 FOR UPDATE"
IS_FREE = "SELECT count(*) FROM (SELECT FROM whereby_trigger.webhooks WHERE id = $1 FOR UPDATE SKIP LOCKED) AS free"


@asynccontextmanager
async def frozen_after(url: str, work: Callable[[Connection], Awaitable[Any]]) -> AsyncIterator[None]:
    """Run some work of a replica in a transaction, and then freeze it."""
    held, thaw = asyncio.Event(), asyncio.Event()

    async def freeze(connection: Connection) -> None:
        async with transaction(connection):
            await work(connection)
            held.set()
            await thaw.wait()

    link = ManagedConnection(address_of(url), 60.0)
    freezing = asyncio.ensure_future(link.run(freeze))
    await held.wait()
    try:
        yield
    finally:
        thaw.set()
        await asyncio.wait({freezing})
        assert freezing.exception() is not None, "the server has not ended what froze"
        await link.close()


@pytest.mark.parametrize("options", ["", "?pooler=yes"])
async def test_a_replica_that_freezes_in_a_transaction_costs_the_others_no_delivery_and_no_claim(
    url: str, opened: Replicas, options: str
) -> None:
    store = await opened(url)
    async with frozen_after(url + options, lambda connection: rooms.lock(connection, [ROOM])):
        ended, asked = await asyncio.gather(session(store, "ended"), ask(store))
        assert not ended.duplicate
        assert asked.new


async def test_a_replica_that_freezes_with_a_row_of_its_own_costs_the_others_no_duplicate(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    await store.add(arrival("same"))
    async with frozen_after(url, lambda connection: connection.execute(LOCKED, "same")):
        assert (await store.add(arrival("same"))).duplicate


async def test_a_replica_that_freezes_in_a_transaction_keeps_no_other_from_giving_back_its_room(
    url: str, opened: Replicas
) -> None:
    leaving, other = await opened(url), await opened(url)
    await ask(leaving)
    await take_one(leaving)
    async with frozen_after(url, lambda connection: rooms.lock(connection, [ROOM])):
        await leaving.close()
    assert [room.state for room in await other.rooms()] == [RoomState.WAITING]


async def test_what_a_replica_waits_for_no_longer_the_server_gives_up_too(url: str, opened: Replicas) -> None:
    store = await opened(url)
    await store.add(arrival("same"))
    async with connected(url) as holding, connected(url) as looking:
        await holding.execute("BEGIN")
        await holding.execute(LOCKED, "same")
        with pytest.raises(StoreUnavailable):
            await store.add(arrival("same", received_at=NOW + 1))

        async def nobody_waits() -> bool:
            return bool(await looking.fetchval(WAITING) == 0)

        await eventually(nobody_waits)
        await holding.execute("COMMIT")
    assert (await record(store, "same")).deliveries == 1


async def test_decisions_lock_in_the_order_of_ids_as_arrivals_do_whatever_came_first(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    ids = ["d", "c", "b", "a"]
    added = {id: await store.add(arrival(id)) for id in ids}
    async with connected(url) as holding, connected(url) as looking:
        await holding.execute("BEGIN")
        await holding.execute(LOCKED, "c")
        deciding = asyncio.gather(*(store.decide(decision(added[id].seq, id)) for id in ids))
        await eventually(lambda: looking.fetchval(WAITING))
        assert [await looking.fetchval(IS_FREE, id) for id in ("a", "b", "d")] == [0, 0, 1]
        await holding.execute("COMMIT")
        assert await deciding == [True] * 4


async def test_a_delivery_that_is_counted_while_its_decision_waits_does_not_lose_the_decision(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    added = await store.add(arrival("one"))
    async with connected(url) as counting, connected(url) as looking:
        await counting.execute("BEGIN")
        await counting.execute("UPDATE whereby_trigger.webhooks SET deliveries = deliveries + 1")
        deciding = asyncio.ensure_future(store.decide(decision(added.seq, "one")))
        await eventually(lambda: looking.fetchval(WAITING))
        await counting.execute("COMMIT")
        assert await deciding
    found = await record(store, "one")
    assert (found.state, found.deliveries) == ("fired", 2)


async def test_a_replay_leaves_a_webhook_alone_that_is_forgotten_while_it_waits_for_its_row(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    seq = await decided(store, "same", State.FIRED)
    async with connected(url) as forgetting, connected(url) as looking:
        await forgetting.execute(f"BEGIN; UPDATE whereby_trigger.webhooks SET body_removed_at = 1 WHERE seq = {seq}")
        replaying = asyncio.ensure_future(store.replay(Query(ids=("same",)), NOW))
        await eventually(lambda: looking.fetchval(WAITING))
        await forgetting.execute("COMMIT")
    assert await replaying == []
    assert (await record(store, "same")).state is State.FIRED


async def test_of_two_replays_at_once_the_later_one_leaves_alone_what_the_first_has_given_to_a_replica(
    url: str, opened: Replicas
) -> None:
    store = await opened(url)
    seq = await decided(store, "same", State.FIRED)
    async with connected(url) as first, connected(url) as looking:
        await first.execute(
            "BEGIN; UPDATE whereby_trigger.webhooks SET state = 'pending', decided_at = NULL, "
            f"owner = '{store.replica}' WHERE seq = {seq}"
        )
        replaying = asyncio.ensure_future(store.replay(Query(state=State.FIRED), NOW))
        await eventually(lambda: looking.fetchval(WAITING))
        await first.execute("COMMIT")
    assert await replaying == []
    assert (await record(store, "same")).owner == store.replica
