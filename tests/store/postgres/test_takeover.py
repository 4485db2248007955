"""Taking over very much: in parts, the rooms first, with no more locks than a server has."""

import asyncio
from collections import Counter

import asyncpg
import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival
from tests.support.postgres import Server, database_of
from tests.support.rooms import ask, take_one
from whereby_trigger.store import RoomState, Store
from whereby_trigger.store.postgres import PostgresStore, lease

pytestmark = pytest.mark.anyio

DIE = "UPDATE whereby_trigger.replicas SET expires = 0 WHERE id <> '{heir}'"
DYING = "UPDATE whereby_trigger.replicas SET expires = whereby_trigger.clock() + 1 WHERE id <> '{heir}'"
MANY = 4000
ROOMS = f"""
INSERT INTO whereby_trigger.rooms (key, url, state, owner, asked_at)
SELECT 'acme.whereby.com/' || n, 'https://acme.whereby.com/' || n, 'live', 'dead', 0 FROM generate_series(1, {MANY}) n;
INSERT INTO whereby_trigger.replicas VALUES ('dead', 1, whereby_trigger.clock(), 0)
"""


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "WEBHOOKS", 2)
    monkeypatch.setattr(lease, "ROOMS", 2)
    monkeypatch.setattr("whereby_trigger.store.postgres.store.TAKEN_AT_ONCE", 4)


async def owned(store: Store) -> list[str]:
    return [row.id for row in await store.pending(0, 100)]


@pytest.mark.usefixtures("small_parts")
async def test_what_a_dead_replica_leaves_is_taken_over_in_parts_in_order_and_to_its_end(
    postgres: Server, url: str, opened: Replicas
) -> None:
    dead, heir = await opened(url), await opened(url)
    ids = [f"webhook {number}" for number in range(7)]
    for id in ids:
        await dead.add(arrival(id))
    for number in range(3):
        await ask(dead, f"acme.whereby.com/{number}")
        await take_one(dead)
    postgres.run(DIE.format(heir=heir.replica), database_of(url))
    assert await heir.take_over() == 4
    assert Counter(room.state for room in await heir.rooms()) == {RoomState.WAITING: 2, RoomState.STARTING: 1}
    assert await owned(heir) == ids[:2]
    assert await heir.take_over() == 5
    assert {room.state for room in await heir.rooms()} == {RoomState.WAITING}
    assert await owned(heir) == ids[:6]
    assert await heir.take_over() == 1
    assert [(row.id, row.takeovers) for row in await heir.pending(0, 100)] == [(id, 1) for id in ids]
    assert await heir.take_over() == 0


@pytest.mark.usefixtures("small_parts")
async def test_a_replica_that_stops_with_more_than_it_gives_back_at_once_leaves_the_rest_to_be_found(
    url: str, opened: Replicas
) -> None:
    heir = await opened(url)
    stopping = PostgresStore(url)
    await stopping.open(lambda: None)
    ids = [f"webhook {number}" for number in range(5)]
    for id in ids:
        await stopping.add(arrival(id))
    await stopping.close()
    while await heir.take_over():
        pass
    assert [(row.id, row.takeovers) for row in await heir.pending(0, 100)] == [(id, 1) for id in ids]
    assert {row.crashes for row in await heir.pending(0, 100)} == {0}


@pytest.mark.usefixtures("small_parts")
async def test_heirs_at_once_share_what_many_dead_have_left(postgres: Server, url: str, opened: Replicas) -> None:
    dead = [await opened(url) for _ in range(3)]
    for number, store in enumerate(dead):
        for at in range(4):
            await store.add(arrival(f"webhook {number} {at}"))
    heirs = [await opened(url) for _ in range(2)]
    ids = "', '".join(heir.replica for heir in heirs)
    postgres.run(f"UPDATE whereby_trigger.replicas SET expires = 0 WHERE id NOT IN ('{ids}')", database_of(url))
    assert sum([await heir.take_over() for heir in heirs * 4]) == 12
    assert sorted([*await owned(heirs[0]), *await owned(heirs[1])]) == [
        f"webhook {number} {at}" for number in range(3) for at in range(4)
    ]


async def test_what_somebody_else_has_locked_is_left_for_the_next_time(
    postgres: Server, url: str, opened: Replicas
) -> None:
    dead, heir = await opened(url), await opened(url)
    for id in ("free", "locked"):
        await dead.add(arrival(id))
    postgres.run(DIE.format(heir=heir.replica), database_of(url))
    holding = await asyncpg.connect(url)
    try:
        await holding.execute("BEGIN")
        await holding.execute("SELECT FROM whereby_trigger.webhooks WHERE id = 'locked' FOR UPDATE")
        assert await heir.take_over() == 1
        assert await heir.take_over() == 0
        assert await owned(heir) == ["free"]
        await holding.execute("COMMIT")
    finally:
        await holding.close()
    assert await heir.take_over() == 1
    assert sorted(await owned(heir)) == ["free", "locked"]


async def test_a_dead_replica_may_have_more_rooms_than_the_server_has_locks() -> None:
    with Server(quick=True, max_connections="20", max_locks_per_transaction="10") as server:
        url = server.create_database()
        await PostgresStore(url).migrate()
        server.run(ROOMS, database_of(url))
        store = PostgresStore(url)
        await store.open(lambda: None)
        try:
            taken = 0
            while claimed := await store.take_over():
                taken += claimed
            assert taken == MANY
            assert {room.state for room in await store.rooms()} == {RoomState.WAITING}
        finally:
            await store.close()


async def test_the_end_of_a_lease_is_looked_for_when_it_comes_and_not_at_the_next_poll(
    postgres: Server, url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.store.postgres.store.POLL", 3600.0)
    dead, heir, told = await opened(url), PostgresStore(url), asyncio.Event()
    await dead.add(arrival("left"))
    await heir.open(told.set)
    try:
        postgres.run(DYING.format(heir=heir.replica), database_of(url))
        claimed = await heir.take_over()
        async with asyncio.timeout(30):
            while not claimed:
                await told.wait()
                told.clear()
                claimed = await heir.take_over()
        assert await owned(heir) == ["left"]
    finally:
        await heir.close()
