"""Committing a decision: once, by the owner, with the errors that belong to it."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival, decided, decision, record
from tests.support.until import eventually
from whereby_trigger.store import Query, State, Store

pytestmark = pytest.mark.anyio


async def test_a_decision_is_kept_with_all_it_says(store: Store) -> None:
    added = await store.add(arrival("a"))
    given = decision(
        added.seq,
        "a",
        State.FAILED,
        reason="predicate f raised KeyError, 3 times",
        attempts=3,
        decided_at=NOW + 2.5,
        errors=("predicate f: KeyError: 'x'", "listener g: ValueError"),
    )
    assert await store.decide(given)
    stored = await record(store, "a")
    assert (stored.state, stored.reason, stored.attempts) == (State.FAILED, given.reason, 3)
    assert (stored.decided_at, stored.errors) == (NOW + 2.5, given.errors)
    assert await store.pending(0, 10) == []


async def test_a_webhook_is_decided_once(store: Store) -> None:
    seq = await decided(store, "a", State.FIRED)
    before = await record(store, "a")
    assert not await store.decide(decision(seq, "a", State.SKIPPED, reason="late", errors=("late",)))
    assert await record(store, "a") == before


async def test_of_decisions_at_once_the_first_holds(store: Store) -> None:
    added = await store.add(arrival("a"))
    states = [State.FIRED, State.SKIPPED, State.FAILED]
    outcomes = await asyncio.gather(*(store.decide(decision(added.seq, "a", state)) for state in states))
    assert outcomes == [True, False, False]
    assert (await record(store, "a")).state is State.FIRED


async def test_only_its_owner_decides_a_webhook(replicas: Replicas) -> None:
    owner, other = await replicas(), await replicas()
    added = await owner.add(arrival("a"))
    assert not await other.decide(decision(added.seq, "a"))
    assert (await record(owner, "a")).state is State.PENDING
    assert await owner.decide(decision(added.seq, "a"))


async def test_a_late_finisher_changes_nothing(replicas: Replicas) -> None:
    """Its webhook was decided, replayed and taken over while it was still at it."""
    late, heir = await replicas(), await replicas()
    seq = await decided(late, "a")
    await heir.replay(Query(ids=("a",)), NOW + 5)
    assert await heir.take_over() == 1
    before = await record(heir, "a")
    assert not await late.decide(decision(seq, "a", State.FAILED, reason="late"))
    assert await late.begin_attempt(seq) == 0
    assert await record(heir, "a") == before
    assert await heir.decide(decision(seq, "a", State.SKIPPED))


async def test_a_decision_on_what_was_never_stored_is_no_error(store: Store) -> None:
    assert not await store.decide(decision(4711, "nobody"))


async def test_a_quarantined_body_is_not_decided_on(store: Store) -> None:
    added = await store.add(arrival("a", state=State.QUARANTINED, reason="odd"))
    assert not await store.decide(decision(added.seq, "a"))
    assert (await record(store, "a")).state is State.QUARANTINED


async def test_blame_counts_up_and_survives_the_decision_of_others(store: Store) -> None:
    one, other = await store.add(arrival("a")), await store.add(arrival("b"))
    assert [await store.begin_attempt(one.seq) for _ in range(3)] == [1, 2, 3]
    await store.decide(decision(other.seq, "b"))
    (row,) = await store.pending(0, 10)
    assert (row.id, row.attempts) == ("a", 3)


async def test_nobody_is_blamed_for_what_is_decided_or_anothers(replicas: Replicas) -> None:
    owner, other = await replicas(), await replicas()
    seq = await decided(owner, "a")
    added = await owner.add(arrival("b"))
    assert await owner.begin_attempt(seq) == 0
    assert await other.begin_attempt(added.seq) == 0
    assert await owner.begin_attempt(4711) == 0
    assert (await owner.pending(0, 10))[0].attempts == 0


async def test_a_note_comes_after_the_errors_of_the_decision_in_order(store: Store) -> None:
    added = await store.add(arrival("a"))
    deciding = store.decide(decision(added.seq, "a", errors=("first",)))
    for error in ("second", "third 'quoted' \"twice\"", "Grüße 🎥"):
        store.append_error("a", error)
    await deciding
    await eventually(lambda: _has_errors(store, 4))
    stored = await record(store, "a")
    assert stored.errors == ("first", "second", "third 'quoted' \"twice\"", "Grüße 🎥")
    assert stored.state is State.FIRED


async def test_a_note_to_a_webhook_that_is_gone_is_lost_quietly(store: Store) -> None:
    store.append_error("nobody", "too late")
    await store.add(arrival("a"))
    assert (await record(store, "a")).errors == ()


async def _has_errors(store: Store, count: int) -> bool:
    return len((await record(store, "a")).errors) == count
