"""The log of replicas: when each started, and how it ended, kept as long as what it did."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM
from tests.support.place import TTL, Place
from whereby_trigger.store import ReplicaEnding, ReplicaRecord, Store

pytestmark = pytest.mark.anyio


async def logged(store: Store, place: Place, since: float = 0.0) -> dict[str, ReplicaRecord]:
    return {each.id: each for each in await store.find_replicas(since, place.clock.now())}


async def test_a_replica_is_logged_from_its_start(place: Place, replicas: Replicas) -> None:
    began = place.clock.now()
    store = await replicas()
    each = (await logged(store, place))[store.replica]
    assert (each.ended_at, each.ending) == (None, None)
    assert each.started_at == pytest.approx(began, abs=5)
    assert each.seen_at == pytest.approx(began, abs=5)


async def test_who_opens_a_store_to_write_something_and_not_to_serve_is_no_replica_in_the_log(
    place: Place, store: Store
) -> None:
    visitor = place.replica()
    await visitor.open()
    assert await visitor.stop(ROOM, "stopped by the program") is None
    assert set(await logged(store, place)) == {store.replica}
    await visitor.close()
    assert set(await logged(store, place)) == {store.replica}


async def test_a_replica_that_stops_is_logged_so(place: Place, store: Store) -> None:
    other = place.replica()
    await other.open(lambda: None)
    await other.close()
    each = (await logged(store, place))[other.replica]
    assert (each.ending, each.seen_at) == (ReplicaEnding.STOPPED, None)
    assert each.ended_at is not None


async def test_a_replica_that_others_find_dead_is_logged_so(place: Place, store: Store, replicas: Replicas) -> None:
    dead = await replicas()
    await place.bury(dead, store)
    assert (await logged(store, place))[dead.replica].ending is None
    await store.take_over()
    each = (await logged(store, place))[dead.replica]
    assert (each.ending, each.seen_at) == (ReplicaEnding.DIED, None)


async def test_a_replica_that_lost_its_lease_goes_on_under_another_id(
    place: Place, store: Store, replicas: Replicas
) -> None:
    loser = await replicas()
    old = loser.replica
    await loser.rejoin(TTL)
    await store.take_over()
    found = await logged(store, place)
    assert found[old].ending is ReplicaEnding.LEASE_LOST
    assert (found[loser.replica].ending, found[loser.replica].ended_at) == (None, None)


async def test_the_last_replica_that_ended_before_a_time_is_found_with_those_of_the_time(
    place: Place, store: Store
) -> None:
    gone = []
    for _ in range(2):
        other = place.replica()
        await other.open(lambda: None)
        place.clock.jump(10)
        await other.close()
        gone.append(other.replica)
        place.clock.jump(10)
    assert set(await logged(store, place, place.clock.now())) == {store.replica, gone[1]}


async def test_replicas_are_forgotten_with_what_they_did(place: Place, store: Store) -> None:
    other = place.replica()
    await other.open(lambda: None)
    await other.close()
    place.clock.jump(10)
    await store.prune(place.clock.now())
    assert set(await logged(store, place)) == {store.replica}
