"""Sessions: their ends and starts, as webhooks tell of them, end the assistants they concern and no others."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, decision
from tests.support.place import Place
from tests.support.rooms import ask, bring_to, move, newest, session, states
from whereby_trigger.store import RoomState, State, Store

pytestmark = pytest.mark.anyio

WAITING, LIVE, ENDING, ENDED = RoomState.WAITING, RoomState.LIVE, RoomState.ENDING, RoomState.ENDED
ELSEWHERE = "acme.whereby.com/elsewhere"

SESSION_ENDS = [
    pytest.param("s", "s", NOW - 5, True, id="ids match, whenever it was"),
    pytest.param("s", "s", None, True, id="ids match, time unknown"),
    pytest.param("s", None, NOW + 1, True, id="its id is unknown and it is later"),
    pytest.param(None, "s", NOW + 1, True, id="the room's id is unknown and it is later"),
    pytest.param(None, None, NOW + 1, True, id="both ids are unknown and it is later"),
    pytest.param("s", None, NOW - 1, False, id="its id is unknown and it is earlier"),
    pytest.param(None, "s", NOW - 1, False, id="the room's id is unknown and it is earlier"),
    pytest.param(None, "s", NOW, False, id="the room's id is unknown and it is no later"),
    pytest.param(None, "s", None, False, id="neither the room's id nor its time is known"),
    pytest.param("s", "other", NOW + 1, False, id="another id"),
    pytest.param("s", "other", None, False, id="another id, time unknown"),
]
SESSION_STARTS = [
    pytest.param("s", "other", NOW + 1, True, id="another id, later"),
    pytest.param("s", "other", NOW - 1, False, id="another id, an old one that came late"),
    pytest.param("s", "s", NOW + 1, False, id="the same id"),
    pytest.param("s", None, NOW + 1, False, id="its id is unknown"),
    pytest.param(None, "s", NOW + 1, False, id="the room's id is unknown"),
]


@pytest.mark.parametrize(("ours", "theirs", "created_at", "ends"), SESSION_ENDS)
async def test_a_sessions_end_asks_the_assistant_of_that_session_to_end(
    store: Store, ours: str | None, theirs: str | None, created_at: float | None, ends: bool
) -> None:
    await bring_to(store, LIVE, session_id=ours)
    await session(store, "end", session_id=theirs, created_at=created_at)
    assert (await newest(store)).stop == ("the session has ended" if ends else None)


@pytest.mark.parametrize(("ours", "theirs", "created_at", "ends"), SESSION_STARTS)
async def test_another_sessions_start_asks_the_assistant_of_the_old_one_to_end(
    store: Store, ours: str | None, theirs: str | None, created_at: float | None, ends: bool
) -> None:
    await bring_to(store, LIVE, session_id=ours)
    await session(store, "start", started=True, session_id=theirs, created_at=created_at)
    assert (await newest(store)).stop == ("another session has started" if ends else None)


async def test_a_room_that_waits_ends_with_its_session_unstarted(place: Place, store: Store) -> None:
    await ask(store, session_id="s")
    place.clock.jump(1)
    await session(store, "end", session_id="s")
    room = await newest(store)
    assert (room.state, room.since) == (ENDED, place.clock.now())
    assert await store.take(10) == []


async def test_a_session_that_ends_while_its_assistant_waits_for_the_old_one_starts_nothing(store: Store) -> None:
    ending = await bring_to(store, ENDING, session_id="old")
    await ask(store, session_id="new")
    await session(store, "end", session_id="new")
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED]


async def test_the_old_sessions_end_spares_what_waits_for_the_new_one(store: Store) -> None:
    ending = await bring_to(store, ENDING, session_id="old")
    await ask(store, session_id="new", asked_at=NOW + 5)
    await session(store, "end", session_id="old", created_at=NOW + 6)
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED, WAITING]


async def test_a_sessions_end_concerns_its_own_room_only(store: Store) -> None:
    await bring_to(store, LIVE, session_id="s")
    await session(store, "end", session_id="s", key=ELSEWHERE)
    assert (await newest(store)).stop is None


async def test_a_sessions_end_takes_effect_once_and_not_with_a_duplicate(store: Store) -> None:
    await session(store, "end", session_id=None, created_at=NOW + 1)
    await bring_to(store, LIVE)
    assert (await session(store, "end", session_id=None, created_at=NOW + 1)).duplicate
    assert (await newest(store)).stop is None


async def test_a_sessions_end_takes_effect_on_receipt_whatever_is_decided(store: Store) -> None:
    await bring_to(store, LIVE, session_id="s")
    added = await session(store, "end", session_id="s")
    assert (await newest(store)).stop == "the session has ended"
    assert await store.decide(decision(added.seq, "end", State.SKIPPED))
    assert (await newest(store)).stop == "the session has ended"


async def test_a_sessions_end_received_by_another_replica_reaches_the_owner(replicas: Replicas) -> None:
    owner, other = await replicas(), await replicas()
    await bring_to(owner, LIVE, session_id="s")
    await session(other, "end", session_id="s")
    (mine,) = await owner.stopping()
    assert mine.stop == "the session has ended"
