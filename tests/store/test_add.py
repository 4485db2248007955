"""Storing a webhook, and counting its further deliveries."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, TYPE, arrival, decision, record
from whereby_trigger.errors import StoreError
from whereby_trigger.store import FIRST_STATES, Added, Query, State, Store

pytestmark = pytest.mark.anyio


async def test_a_webhook_is_stored_as_it_came_pending_and_owned_by_who_received_it(store: Store) -> None:
    added = await store.add(arrival("a", body=b'{"id":"a"}', received_at=NOW + 0.125))
    stored = await record(store, "a")
    assert not added.duplicate
    assert added.state is State.PENDING
    assert (stored.id, stored.type, stored.room, stored.body) == ("a", TYPE, ROOM, b'{"id":"a"}')
    assert (stored.state, stored.reason, stored.attempts, stored.deliveries) == (State.PENDING, "", 0, 1)
    assert (stored.received_at, stored.decided_at, stored.errors) == (NOW + 0.125, None, ())
    assert stored.owner == store.replica


async def test_a_webhook_without_a_room_is_stored_without_one(store: Store) -> None:
    await store.add(arrival("a", room=None))
    assert (await record(store, "a")).room is None


async def test_a_quarantined_body_is_stored_decided_with_its_reason(store: Store) -> None:
    added = await store.add(arrival("a", type="", room=None, state=State.QUARANTINED, reason="not UTF-8"))
    stored = await record(store, "a")
    assert added == Added(added.seq, False, State.QUARANTINED, store.replica)
    assert (stored.state, stored.reason, stored.decided_at) == (State.QUARANTINED, "not UTF-8", NOW)
    assert await store.pending(0, 10) == []


async def test_a_duplicate_adds_to_the_deliveries_and_changes_nothing_else(store: Store) -> None:
    first = await store.add(arrival("a", body=b"first"))
    second = await store.add(arrival("a", body=b"second", type="room.client.left", room="x", received_at=NOW + 9))
    stored = await record(store, "a")
    assert second == Added(first.seq, True, State.PENDING)
    assert stored.deliveries == 2
    assert (stored.body, stored.type, stored.room, stored.received_at) == (b"first", TYPE, ROOM, NOW)


async def test_a_duplicate_of_a_decided_webhook_tells_what_was_decided(store: Store) -> None:
    first = await store.add(arrival("a"))
    await store.decide(decision(first.seq, "a", State.SKIPPED))
    assert await store.add(arrival("a")) == Added(first.seq, True, State.SKIPPED)
    assert (await record(store, "a")).deliveries == 2
    assert await store.pending(0, 10) == []


async def test_a_duplicate_that_cannot_be_decoded_quarantines_nothing(store: Store) -> None:
    await store.add(arrival("a"))
    await store.add(arrival("a", state=State.QUARANTINED, reason="odd"))
    assert (await record(store, "a")).state is State.PENDING


async def test_a_duplicate_at_another_replica_stays_with_the_first(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    await one.add(arrival("a"))
    assert (await two.add(arrival("a"))).duplicate
    assert (await record(two, "a")).owner == one.replica
    assert await two.pending(0, 10) == []


async def test_of_many_deliveries_at_once_one_is_new_and_all_are_counted(replicas: Replicas) -> None:
    one, two = await replicas(), await replicas()
    both = [store.add(arrival("a", body=store.replica.encode())) for _ in range(50) for store in (one, two)]
    added = await asyncio.gather(*both)
    assert [one_added.duplicate for one_added in added].count(False) == 1
    stored = await record(one, "a")
    assert stored.deliveries == 100
    assert stored.body.decode() == stored.owner


async def test_the_numbers_of_a_rooms_webhooks_ascend_in_the_order_of_arrival(store: Store) -> None:
    added = await asyncio.gather(*(store.add(arrival(str(n), room=f"{ROOM}-{n % 5}")) for n in range(1500)))
    seqs = [one.seq for one in added]
    assert len(set(seqs)) == 1500
    assert min(seqs) > 0
    for room in range(5):
        assert seqs[room::5] == sorted(seqs[room::5])


async def test_a_forgotten_webhooks_number_goes_to_no_other(store: Store) -> None:
    first = await store.add(arrival("a"))
    await store.decide(decision(first.seq, "a"))
    await store.prune(NOW + 1)
    second = await store.add(arrival("b"))
    assert second.seq > first.seq
    assert not await store.decide(decision(first.seq, "a"))
    assert (await record(store, "b")).state is State.PENDING


async def test_no_webhook_is_stored_as_decided_by_somebody(store: Store) -> None:
    for state in set(State) - FIRST_STATES:
        with pytest.raises(StoreError, match=state):
            await store.add(arrival("a", state=state))
    assert await store.find(Query()) == []
