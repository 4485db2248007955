"""The states: one table, which every store keeps to."""

import pytest

from tests.support.arrivals import NOW, arrival, decision, record
from whereby_trigger.errors import StoreError
from whereby_trigger.store import FIRST_STATES, TRANSITIONS, Query, State, Store

pytestmark = pytest.mark.anyio

WAYS = [(before, after) for before in State for after in State if after is not State.PENDING]


async def bring_to(store: Store, state: State) -> int:
    """Store a webhook and have it get into a state by the shortest way."""
    if state in FIRST_STATES:
        return (await store.add(arrival("a", state=state, reason="" if state is State.PENDING else "odd"))).seq
    seq = (await store.add(arrival("a"))).seq
    assert await store.decide(decision(seq, "a", state))
    return seq


def test_the_table_speaks_of_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set().union(*TRANSITIONS.values()) == set(State)
    assert set(State) >= FIRST_STATES


@pytest.mark.parametrize(("before", "after"), WAYS, ids=lambda state: state)
async def test_a_decision_leads_where_the_table_lets_it(store: Store, before: State, after: State) -> None:
    seq = await bring_to(store, before)
    allowed = after in TRANSITIONS[before]
    assert await store.decide(decision(seq, "a", after)) is allowed
    assert (await record(store, "a")).state is (after if allowed else before)


@pytest.mark.parametrize("before", State, ids=lambda state: state)
async def test_a_replay_leads_where_the_table_lets_it(store: Store, before: State) -> None:
    await bring_to(store, before)
    allowed = State.PENDING in TRANSITIONS[before]
    assert await store.replay(Query(), NOW) == (["a"] if allowed else [])
    assert (await record(store, "a")).state is State.PENDING


async def test_pending_is_no_decision(store: Store) -> None:
    seq = await bring_to(store, State.PENDING)
    before = await record(store, "a")
    with pytest.raises(StoreError, match="pending"):
        await store.decide(decision(seq, "a", State.PENDING))
    assert await record(store, "a") == before
