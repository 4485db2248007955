"""Taking over what nobody decides: of replicas that died, and what a replay has left to any replica."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival, decided, decision, record
from tests.support.place import TTL, Place
from tests.support.replica import replica_that_stores
from tests.support.until import eventually
from whereby_trigger.store import Holding, Query, State, Store

pytestmark = pytest.mark.anyio


async def test_nothing_of_a_live_replica_is_claimed(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    await one.add(arrival("a"))
    assert await two.take_over() == 0
    assert await one.take_over() == 0
    assert (await record(two, "a")).owner == one.replica


async def test_nothing_of_a_live_process_is_claimed(place: Place, store: Store) -> None:
    with replica_that_stores(place.url, "a", "b") as alive:
        owner = alive.line("stored").split()[1]
        assert await store.take_over() == 0
        assert {stored.owner for stored in await store.find(Query())} == {owner}


async def test_a_killed_replicas_webhooks_are_taken_over_with_the_takeover_counted(place: Place, store: Store) -> None:
    with replica_that_stores(place.url, "a", "b", "c") as dead:
        dead.line("stored")
        dead.kill()
    await place.outlast_the_dead(store)
    await eventually(store.take_over)
    rows = await store.pending(0, 10)
    assert [(row.id, row.takeovers, row.attempts) for row in rows] == [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)]
    assert {row.crashes for row in rows} == {1}
    assert {stored.owner for stored in await store.find(Query())} == {store.replica}
    assert await store.take_over() == 0


async def test_each_takeover_adds_to_the_count_and_keeps_the_blame(place: Place, replicas: Replicas) -> None:
    owner = await replicas()
    added = await owner.add(arrival("a"))
    for takeovers in (1, 2, 3):
        await owner.begin_attempt(added.seq)
        await place.bury(owner)
        owner = await replicas()
        assert await owner.take_over() == 1
        (row,) = await owner.pending(0, 10)
        assert (row.takeovers, row.attempts) == (takeovers, takeovers)
        assert row.crashes == takeovers


async def test_only_deaths_are_counted_as_crashes_and_not_stops_or_lost_leases(
    place: Place, replicas: Replicas
) -> None:
    owner = await replicas()
    await owner.add(arrival("a"))
    await owner.rejoin(TTL)
    assert await owner.take_over() == 1
    await owner.close()
    owner = await replicas()
    assert await owner.take_over() == 1
    assert [(row.takeovers, row.crashes) for row in await owner.pending(0, 10)] == [(2, 0)]
    await place.bury(owner)
    owner = await replicas()
    assert await owner.take_over() == 1
    assert [(row.takeovers, row.crashes) for row in await owner.pending(0, 10)] == [(3, 1)]


async def test_a_lease_that_ended_while_nobody_could_renew_is_no_crash_and_a_death_after_that_is(
    place: Place, replicas: Replicas
) -> None:
    first, other, later = await replicas(), await replicas(), await replicas()
    await other.add(arrival("of one that lives"))
    await place.outlast_leases(later)
    await first.rejoin(TTL)
    assert await first.take_over() == 1
    await later.add(arrival("of one that dies"))
    await place.bury(later, first)
    assert await first.take_over() == 1
    found = {row.id: (row.takeovers, row.crashes) for row in await first.pending(0, 10)}
    assert found == {"of one that lives": (1, 0), "of one that dies": (1, 1)}


async def test_a_webhook_that_is_held_or_replayed_after_a_crash_counts_its_crashes_from_0(
    place: Place, replicas: Replicas
) -> None:
    dead = await replicas()
    await dead.add(arrival("held"))
    await dead.add(arrival("replayed"))
    await place.bury(dead)
    owner = await replicas()
    assert await owner.take_over() == 2
    held, replayed = await owner.pending(0, 10)
    assert (held.crashes, replayed.crashes) == (1, 1)
    assert await owner.hold(Holding(held.seq, held.id, "waits", 30.0))
    assert await owner.decide(decision(replayed.seq, "replayed"))
    assert await owner.replay(Query(ids=("replayed",)), NOW) == ["replayed"]
    assert await owner.take_over() == 1
    assert [(row.id, row.crashes) for row in await owner.pending(0, 10)] == [("replayed", 0)]
    (asked,) = await owner.ask_again([held.seq])
    assert (asked.id, asked.crashes) == ("held", 0)


async def test_a_takeover_leaves_decisions_alone(replicas: Replicas) -> None:
    gone, heir = await replicas(), await replicas()
    await decided(gone, "a")
    await gone.add(arrival("b", state=State.QUARANTINED, reason="odd"))
    await gone.close()
    assert await heir.take_over() == 0
    assert {stored.owner for stored in await heir.find(Query())} == {gone.replica}


async def test_replayed_webhooks_go_to_who_claims_them_first_without_a_takeover(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    for id in ("a", "b"):
        await decided(one, id)
    await one.replay(Query(), NOW + 5)
    assert await one.pending(0, 10) == []
    assert await two.take_over() == 2
    assert await one.take_over() == 0
    assert [(row.id, row.takeovers) for row in await two.pending(0, 10)] == [("a", 0), ("b", 0)]


async def test_of_claims_at_once_each_webhook_goes_to_one(replicas: Replicas) -> None:
    gone, *heirs = [await replicas() for _ in range(4)]
    await asyncio.gather(*(gone.add(arrival(str(n))) for n in range(100)))
    await gone.close()
    claimed = await asyncio.gather(*(heir.take_over() for heir in heirs))
    held = [row.id for heir in heirs for row in await heir.pending(0, 1000)]
    assert sum(claimed) == 100
    assert sorted(held) == sorted(str(n) for n in range(100))


async def test_what_was_taken_over_is_decided_by_its_new_owner_alone(replicas: Replicas) -> None:
    gone, heir = await replicas(), await replicas()
    added = await gone.add(arrival("a"))
    await gone.close()
    await heir.take_over()
    assert await heir.decide(decision(added.seq, "a"))


async def test_pending_webhooks_are_read_in_order_of_arrival_page_by_page(store: Store) -> None:
    await asyncio.gather(*(store.add(arrival(str(n), body=b"%d" % n, received_at=NOW - n)) for n in range(25)))
    await decided(store, "decided")
    await store.add(arrival("last"))
    ids, after = [], 0
    while rows := await store.pending(after, 10):
        assert len(rows) <= 10
        ids += [row.id for row in rows]
        after = rows[-1].seq
    assert ids == [*map(str, range(25)), "last"]
    (first,) = await store.pending(0, 1)
    assert (first.body, first.received_at, first.queued_at) == (b"0", NOW, NOW)
    assert (first.attempts, first.takeovers, first.type) == (0, 0, "room.client.joined")


async def test_pending_shows_a_replica_its_own_only(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    await one.add(arrival("a"))
    await two.add(arrival("b"))
    assert [row.id for row in await one.pending(0, 10)] == ["a"]
    assert [row.id for row in await two.pending(0, 10)] == ["b"]
