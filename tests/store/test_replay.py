"""Replaying decided webhooks."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival, decided, decision, record
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio


async def test_a_replay_makes_a_decided_webhook_as_if_it_had_just_come(store: Store) -> None:
    added = await store.add(arrival("a"))
    await store.add(arrival("a"))
    await store.begin_attempt(added.seq)
    await store.decide(decision(added.seq, "a", State.FAILED, attempts=3, errors=("x",)))
    assert await store.replay(Query(ids=("a",)), NOW + 50) == ["a"]
    stored = await record(store, "a")
    assert (stored.state, stored.reason, stored.attempts, stored.errors) == (State.PENDING, "", 0, ())
    assert (stored.decided_at, stored.owner) == (None, None)
    assert (stored.received_at, stored.deliveries) == (NOW, 2)
    await store.take_over()
    (row,) = await store.pending(0, 10)
    assert (row.seq, row.queued_at, row.attempts, row.takeovers) == (added.seq, NOW + 50, 0, 0)


async def test_a_quarantined_body_can_be_replayed(store: Store) -> None:
    await store.add(arrival("a", state=State.QUARANTINED, reason="odd"))
    assert await store.replay(Query(state=State.QUARANTINED), NOW) == ["a"]
    assert (await record(store, "a")).state is State.PENDING


async def test_a_replay_never_touches_what_is_pending(replicas: Replicas) -> None:
    owner, other = await replicas(), await replicas()
    added = await owner.add(arrival("a"))
    await owner.begin_attempt(added.seq)
    before = await record(owner, "a")
    assert await other.replay(Query(ids=("a",)), NOW + 50) == []
    assert await other.replay(Query(state=State.PENDING), NOW + 50) == []
    assert await record(owner, "a") == before
    assert (await owner.pending(0, 1))[0].queued_at == NOW


async def test_a_replay_takes_what_its_query_selects_and_no_more(store: Store) -> None:
    await decided(store, "a", State.FAILED)
    await decided(store, "b", State.FIRED)
    await decided(store, "c", State.FAILED)
    assert sorted(await store.replay(Query(state=State.FAILED), NOW)) == ["a", "c"]
    assert (await record(store, "b")).state is State.FIRED
    assert await store.replay(Query(ids=("nobody",)), NOW) == []


async def test_a_replay_stays_within_its_limit_and_takes_the_newest(store: Store) -> None:
    for id in "abcd":
        await decided(store, id, State.FAILED)
    await store.add(arrival("e"))
    assert sorted(await store.replay(Query(state=State.FAILED, limit=2), NOW)) == ["c", "d"]
    assert (await record(store, "b")).state is State.FAILED
    assert sorted(await store.replay(Query(limit=2), NOW)) == ["a", "b"]


async def test_a_replayed_webhook_is_decided_again(store: Store) -> None:
    seq = await decided(store, "a", State.FAILED)
    await store.replay(Query(), NOW)
    await store.take_over()
    assert await store.decide(decision(seq, "a", State.FIRED))
    assert (await record(store, "a")).state is State.FIRED
