"""Holding webhooks: until when, and what happens if they are asked again or lose their replica."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival, decision, held, holding, record
from tests.support.place import Place
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio


async def test_a_held_webhook_is_stored_with_its_reason_and_when_it_is_due(place: Place, store: Store) -> None:
    added = await store.add(arrival("a"))
    assert await store.hold(holding(added.seq, "a", 30, reason="held for 30 s: 2 humans", errors=("listener f",)))
    stored = await record(store, "a")
    assert (stored.state, stored.reason, stored.owner) == (State.HELD, "held for 30 s: 2 humans", store.replica)
    assert (stored.decided_at, stored.errors) == (None, ("listener f",))
    (row,) = await store.ask_again([added.seq])
    assert stored.due_at is not None
    assert (row.held_for, row.due_in) == (0, 30)


async def test_a_hold_counts_from_its_commit_by_the_stores_clock(place: Place, store: Store) -> None:
    seq = await held(store, "a", 30)
    place.clock.jump(12)
    (row,) = await store.ask_again([seq])
    assert (row.held_for, row.due_in) == (12, 18)
    place.clock.jump(20)
    (row,) = await store.pending(0, 10)
    assert (row.held_for, row.due_in) == (32, -2)


async def test_a_webhook_without_a_hold_has_no_time_at_which_it_is_due(store: Store) -> None:
    await store.add(arrival("a"))
    (row,) = await store.pending(0, 10)
    assert (row.held_for, row.due_in, (await record(store, "a")).due_at) == (None, None, None)


async def test_a_second_hold_keeps_the_time_at_which_the_first_was_due(store: Store) -> None:
    seq = await held(store, "a", 30)
    due_at = (await record(store, "a")).due_at
    await store.ask_again([seq])
    assert await store.hold(holding(seq, "a", 500, reason="held again"))
    stored = await record(store, "a")
    assert (stored.due_at, stored.reason) == (due_at, "held again")


async def test_what_is_asked_again_is_pending_with_all_that_was_stored(store: Store) -> None:
    added = await store.add(arrival("a", body=b"{1}"))
    await store.begin_attempt(added.seq)
    await store.hold(holding(added.seq, "a"))
    assert await store.pending(0, 10) == []
    (asked,) = await store.ask_again([added.seq])
    assert (asked.id, asked.body, asked.received_at, asked.queued_at) == ("a", b"{1}", NOW, NOW)
    assert (asked.attempts, asked.takeovers) == (0, 0)
    (row,) = await store.pending(0, 10)
    assert (row.seq, (await record(store, "a")).reason) == (added.seq, "")


async def test_many_are_asked_again_at_once_in_order_of_arrival(store: Store) -> None:
    seqs = [await held(store, str(n)) for n in range(20)]
    asked = await store.ask_again(seqs[::-1])
    assert [row.seq for row in asked] == seqs
    assert await store.ask_again(seqs) == []


async def test_no_replica_asks_again_what_another_holds(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    seq = await held(one, "a")
    assert await two.ask_again([seq]) == []
    assert not await two.hold(holding(seq, "a"))
    assert (await record(one, "a")).state is State.HELD


async def test_errors_from_before_and_after_the_hold_are_all_kept(store: Store) -> None:
    added = await store.add(arrival("a"))
    await store.hold(holding(added.seq, "a", errors=("one",)))
    store.append_error("a", "two")
    await store.ask_again([added.seq])
    assert await store.decide(decision(added.seq, "a", errors=("three", "four")))
    assert (await record(store, "a")).errors == ("one", "two", "three", "four")


async def test_a_duplicate_of_a_held_webhook_is_counted_and_said_to_be_held(store: Store) -> None:
    seq = await held(store, "a")
    added = await store.add(arrival("a"))
    assert (added.seq, added.duplicate, added.state) == (seq, True, State.HELD)
    assert (await record(store, "a")).deliveries == 2


async def test_held_webhooks_are_found_by_their_state(store: Store) -> None:
    await held(store, "a")
    await store.add(arrival("b"))
    assert [stored.id for stored in await store.find(Query(state=State.HELD))] == ["a"]


async def test_the_newest_number_grows_with_each_webhook(store: Store) -> None:
    assert await store.newest() == 0
    seqs = [(await store.add(arrival(id))).seq for id in "ab"]
    assert await store.newest() == seqs[-1]


async def test_prune_never_deletes_a_held_webhook(store: Store) -> None:
    await held(store, "a")
    assert await store.prune(NOW + 1e9) == 0
    assert (await record(store, "a")).state is State.HELD


async def test_a_replay_of_a_held_webhook_starts_from_scratch(store: Store) -> None:
    seq = await held(store, "a", 30)
    assert await store.replay(Query(ids=("a",)), NOW + 50) == ["a"]
    stored = await record(store, "a")
    assert (stored.state, stored.reason, stored.owner, stored.due_at) == (State.PENDING, "", None, None)
    assert await store.ask_again([seq]) == []
    await store.take_over()
    (row,) = await store.pending(0, 10)
    assert (row.held_for, row.due_in, row.queued_at) == (None, None, NOW + 50)


async def test_a_dead_replicas_held_webhooks_are_pending_at_another_and_due_when_they_were(
    place: Place, replicas: Replicas
) -> None:
    gone, heir = await replicas(), await replicas()
    for id in ("a", "b"):
        await held(gone, id, 500)
    due_at = (await record(heir, "a")).due_at
    await place.bury(gone, heir)
    assert await heir.take_over() == 2
    rows = await heir.pending(0, 10)
    assert [(row.id, row.takeovers, row.attempts) for row in rows] == [("a", 0, 0), ("b", 0, 0)]
    stored = await record(heir, "a")
    assert (stored.state, stored.owner, stored.due_at) == (State.PENDING, heir.replica, due_at)
    assert await heir.take_over() == 0


async def test_a_replica_that_leaves_gives_its_held_webhooks_back(replicas: Replicas) -> None:
    gone, heir = await replicas(), await replicas()
    await held(gone, "a")
    await gone.close()
    assert (await record(heir, "a")).state is State.PENDING
    assert await heir.take_over() == 1
    (row,) = await heir.pending(0, 10)
    assert (row.takeovers, row.due_in) == (0, 30)


async def test_a_replica_that_starts_again_under_another_id_finds_what_it_held(place: Place, store: Store) -> None:
    await held(store, "a")
    await store.rejoin(30)
    assert await store.take_over() == 1
    assert [row.id for row in await store.pending(0, 10)] == ["a"]


async def test_held_webhooks_whose_replica_nobody_knows_are_found(replicas: Replicas, place: Place) -> None:
    one, two, other = [await replicas() for _ in range(3)]
    await held(one, "a")
    await held(two, "b")
    await held(other, "c")
    await place.forget(one)
    await place.forget(two)
    assert await other.take_over() >= 1
    await other.take_over()
    assert {row.id for row in await other.pending(0, 10)} == {"a", "b"}
    assert (await record(other, "c")).state is State.HELD


async def test_of_takeovers_at_once_each_held_webhook_goes_to_one(replicas: Replicas) -> None:
    gone, *heirs = [await replicas() for _ in range(4)]
    await asyncio.gather(*(held(gone, str(n)) for n in range(60)))
    await gone.close()
    assert sum(await asyncio.gather(*(heir.take_over() for heir in heirs))) == 60
    taken = [row.id for heir in heirs for row in await heir.pending(0, 1000)]
    assert sorted(taken) == sorted(str(n) for n in range(60))
