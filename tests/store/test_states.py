"""The states: one table, which every store follows."""

import pytest

from tests.support.arrivals import NOW, arrival, decision, holding, record
from whereby_trigger.errors import StoreError
from whereby_trigger.store import FIRST_STATES, TRANSITIONS, UNDECIDED, Query, State, Store

pytestmark = pytest.mark.anyio


async def bring_to(store: Store, state: State, id: str) -> int:
    """Store a webhook and move it to a state by the shortest way."""
    if state in FIRST_STATES:
        return (await store.add(arrival(id, state=state, reason="" if state is State.PENDING else "odd"))).seq
    seq = (await store.add(arrival(id))).seq
    if state is State.HELD:
        assert await store.hold(holding(seq, id))
        return seq
    assert await store.decide(decision(seq, id, state))
    return seq


def test_the_table_speaks_of_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert set().union(*TRANSITIONS.values()) == set(State)
    assert set(State) >= FIRST_STATES


async def test_a_decision_leads_where_the_table_lets_it(store: Store) -> None:
    for before in State:
        for after in set(State) - UNDECIDED:
            id = f"{before} to {after}"
            seq = await bring_to(store, before, id)
            allowed = after in TRANSITIONS[before]
            assert await store.decide(decision(seq, id, after)) is allowed, id
            assert (await record(store, id)).state is (after if allowed else before), id


async def test_a_replay_leads_where_the_table_lets_it(store: Store) -> None:
    for before in State:
        await bring_to(store, before, before)
        allowed = State.PENDING in TRANSITIONS[before]
        assert await store.replay(Query(ids=(before,)), NOW) == ([before] if allowed else [])
        assert (await record(store, before)).state is State.PENDING


async def test_a_hold_leads_where_the_table_lets_it(store: Store) -> None:
    for before in State:
        seq = await bring_to(store, before, before)
        allowed = State.HELD in TRANSITIONS[before]
        assert await store.hold(holding(seq, before)) is allowed, before
        assert (await record(store, before)).state is (State.HELD if allowed else before)


async def test_only_a_held_webhook_is_asked_again(store: Store) -> None:
    seqs = {state: await bring_to(store, state, state) for state in State}
    assert [row.seq for row in await store.ask_again(list(seqs.values()))] == [seqs[State.HELD]]
    assert (await record(store, State.HELD)).state is State.PENDING


@pytest.mark.parametrize("state", sorted(UNDECIDED))
async def test_pending_and_held_are_no_decisions(store: Store, state: State) -> None:
    seq = await bring_to(store, State.PENDING, "a")
    before = await record(store, "a")
    with pytest.raises(StoreError, match=f"{state}|CHECK"):
        await store.decide(decision(seq, "a", state))
    assert await record(store, "a") == before
