"""The rooms that a name may mean, and where somebody is now."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival
from tests.support.rooms import ask
from whereby_trigger.store import Arrival, Count, Query, State, Store

pytestmark = pytest.mark.anyio


async def test_a_name_means_every_room_of_which_there_is_a_webhook_or_an_entry(store: Store) -> None:
    await store.add(arrival("1", room="acme.whereby.com/visit-1"))
    await store.add(arrival("2", room="acme.whereby.com/visit-10"))
    await store.add(arrival("3", room=None))
    await ask(store, "other.whereby.com/visit-1")
    assert await store.room_keys("/visit-1") == ["acme.whereby.com/visit-1", "other.whereby.com/visit-1"]
    assert await store.room_keys("/elsewhere") == []


async def test_rooms_that_hold_somebody_are_found_latest_change_first(store: Store) -> None:
    for number, (humans, bots) in enumerate(((1, 0), (0, 0), (0, 2), (3, 1))):
        key = f"acme.whereby.com/room-{number}"
        count = Count(key, humans, bots, NOW + number, "s")
        await store.add(Arrival(f"w{number}", "room.client.joined", key, b"{}", NOW, count=count))
    found = await store.occupied(2)
    assert [(key[-1], presence.humans, presence.bots) for key, presence in found.items()] == [("3", 3, 1), ("2", 0, 2)]


async def test_what_a_replay_and_a_pruning_would_change_is_known_before(store: Store, replicas: Replicas) -> None:
    await store.add(arrival("odd", state=State.QUARANTINED, received_at=NOW - 10))
    await store.add(arrival("pending", received_at=NOW - 10))
    await store.add(arrival("young", state=State.QUARANTINED))
    assert await store.replayable(Query()) == ["young", "odd"]
    assert await store.prunable(NOW - 5) == 1
    told: list[int] = []
    assert await store.prune(NOW - 5, told.append) == sum(told) == 1


async def test_the_rooms_of_every_host_are_found_however_the_hosts_are_sorted(store: Store) -> None:
    hosts = ["a-b.whereby.com", "a.whereby.com", "ab.whereby.com", "a0.whereby.com", "z.whereby.com"]
    for host in hosts:
        for name in ("first", "visit-1", "zz"):
            await store.add(arrival(f"{host} {name}", room=f"{host}/{name}"))
    assert await store.room_keys("/visit-1") == sorted(f"{host}/visit-1" for host in hosts)
    assert await store.room_keys("/zz") == sorted(f"{host}/zz" for host in hosts)
