"""Sessions: the webhooks of their ends and starts end the assistants that they concern and no others."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, arrival, decision
from tests.support.place import Place
from tests.support.rooms import ask, bring_to, move, newest, request, session, session_arrival, states
from whereby_trigger.assist.supervisor import request_for
from whereby_trigger.store import RoomClaim, RoomState, State, Store
from whereby_trigger.store.room_rules import Successor, pack, unpack
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import room_from_url

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


async def test_a_session_whose_id_no_text_of_postgresql_can_hold_begins_and_ends_like_any_other(store: Store) -> None:
    joined = webhook("room.client.joined", room_session_id="a\0b")
    assert (await store.request(request_for(room_from_url("https://acme.whereby.com/visit-1"), joined, NOW))).new
    await session(store, "another's end", session_id="a\0c")
    assert await states(store) == [WAITING]
    await session(store, "its end", session_id="a\0b")
    assert await states(store) == [ENDED]


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


# Successes that come after the end


OVER = RoomClaim(False, ENDED, None)
SUCCESSES_TOO_LATE = [
    pytest.param({"session_id": "s"}, "s", id="of the session that has ended"),
    pytest.param({"session_id": None, "asked_at": NOW - 1}, "s", id="of an unknown session, before that end"),
]


@pytest.mark.parametrize(("success", "ended"), SUCCESSES_TOO_LATE)
@pytest.mark.parametrize("first", ["end", "success"])
async def test_a_success_whose_session_has_ended_starts_nothing_whichever_arrived_first(
    store: Store, success: dict[str, Any], ended: str, first: str
) -> None:
    arrivals = [arrival("fired"), session_arrival("end", session_id=ended)]
    for one in arrivals if first == "success" else reversed(arrivals):
        await store.add(one)
    assert await ask(store, webhook="fired", **success) == OVER
    assert await states(store) == []


async def test_a_success_of_a_session_that_another_has_followed_starts_nothing(store: Store) -> None:
    await session(store, "start", started=True, session_id="new", created_at=NOW + 5)
    assert await ask(store, webhook="fired", session_id="old") == OVER
    assert await ask(store, webhook="fired", session_id="new", asked_at=NOW + 6) == RoomClaim(True, WAITING, None)


FUTURE = NOW + 70 * 365 * 86400


@pytest.mark.parametrize("of", [None, "other"])
@pytest.mark.parametrize("started", [True, False])
async def test_a_webhook_from_the_future_does_not_keep_the_room_from_every_later_meeting(
    store: Store, of: str | None, started: bool
) -> None:
    await session(store, "odd", started=started, session_id=of, created_at=FUTURE, received_at=NOW)
    assert await ask(store, webhook="fired", session_id="new", asked_at=NOW + 1) == RoomClaim(True, WAITING, None)


async def test_a_success_from_the_future_makes_place_for_the_next_meetings(store: Store) -> None:
    room = room_from_url("https://acme.whereby.com/visit-1")
    odd = webhook("room.client.joined", room_session_id="odd", created_at=datetime.fromtimestamp(FUTURE, UTC))
    assert (await store.request(request_for(room, odd, NOW))).new
    assert await ask(store, webhook="fired", session_id="new", asked_at=NOW + 1) == RoomClaim(True, WAITING, None)


async def test_a_success_that_does_not_say_when_it_was_created_is_as_old_as_its_arrival_and_takes_no_newer_room(
    store: Store,
) -> None:
    room = room_from_url("https://acme.whereby.com/visit-1")
    await ask(store, webhook="new", session_id="new", asked_at=NOW)
    undated = structs.replace(webhook("room.client.joined", room_session_id="old"), created_at=None)
    assert (await store.request(request_for(room, undated, NOW - 60))).outdated


async def test_a_success_whose_session_has_ended_does_not_follow_an_assistant_that_is_ending(store: Store) -> None:
    ending = await bring_to(store, ENDING, session_id="old")
    await session(store, "end", session_id="new")
    assert await ask(store, webhook="fired", session_id="new") == OVER
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED]


async def test_a_success_too_late_leaves_what_was_to_follow(store: Store) -> None:
    ending = await bring_to(store, ENDING, session_id="old")
    await session(store, "end", session_id="over")
    await ask(store, webhook="next", session_id="new")
    assert await ask(store, webhook="late", session_id="over") == OVER
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED, WAITING]
    assert (await newest(store)).webhook == "next"


@pytest.mark.parametrize("ended", ["another session", None])
async def test_a_success_after_the_end_of_an_earlier_session_starts(store: Store, ended: str | None) -> None:
    await session(store, "end", session_id=ended, created_at=NOW - 1)
    assert await ask(store, webhook="fired", session_id="s") == RoomClaim(True, WAITING, None)


async def test_a_success_is_not_refused_for_another_rooms_session(store: Store) -> None:
    await session(store, "end", session_id="s", key=ELSEWHERE)
    assert (await ask(store, webhook="fired", session_id="s")).new


async def test_a_request_by_hand_is_not_refused_whatever_has_ended(store: Store) -> None:
    await session(store, "end", session_id=None, created_at=NOW + 60)
    assert await ask(store) == RoomClaim(True, WAITING, None)


# Successors


async def test_a_successor_waits_since_the_time_at_which_it_was_kept(place: Place, store: Store) -> None:
    old = await bring_to(store, LIVE, session_id="old")
    kept_at = place.clock.now()
    await ask(store, webhook="next", session_id="new", asked_at=NOW + 5)
    place.clock.jump(7)
    await move(store, old, ENDED)
    room = await newest(store)
    assert (room.state, room.queued_at, room.since) == (WAITING, kept_at, kept_at + 7)


async def test_a_successor_of_a_room_that_waited_for_too_long_waits_in_its_place(place: Place, store: Store) -> None:
    await ask(store, webhook="first", session_id="s")
    await ask(store, webhook="next", asked_at=NOW + 5)
    await place.pass_time(80, store)
    await store.take_over(40)
    assert await states(store) == [ENDED, WAITING]
    assert (await newest(store)).webhook == "next"


async def test_a_successor_survives_the_replica_of_the_room(place: Place, replicas: Replicas) -> None:
    owner, other = await replicas(), await replicas()
    await bring_to(owner, LIVE, webhook="first", session_id="s")
    assert (await ask(owner, webhook="next", asked_at=NOW + 5)).successor
    await place.bury(owner, other)
    await other.take_over()
    (again,) = await other.take(10)
    assert again.webhook == "first"
    await move(other, again, ENDED)
    assert (await newest(other)).webhook == "next"


def test_a_successor_that_an_earlier_version_stored_is_read() -> None:
    asked = request(webhook="next", session_id="new")
    assert unpack(json.dumps(structs.asdict(asked))) == Successor(asked)
    assert unpack(pack(asked, 7.0)) == Successor(asked, 7.0)


# Reported


@pytest.mark.parametrize(
    ("state", "effect"),
    [
        (RoomState.WAITING, "its room no longer waits for an assistant"),
        (RoomState.STARTING, "it ends the assistant of its room"),
        (RoomState.LIVE, "it ends the assistant of its room"),
        (RoomState.ENDED, ""),
    ],
)
async def test_an_end_of_a_session_tells_what_it_did_at_once_and_to_who_reads_it_back(
    store: Store, state: RoomState, effect: str
) -> None:
    await bring_to(store, state, session_id="s")
    added = await session(store, "end", session_id="s", created_at=NOW + 1)
    again = await session(store, "end", session_id="s", created_at=NOW + 1)
    assert (added.effect, again.effect) == (effect, "")
    assert [row.effect for row in await store.pending(0, 10)] == [effect]


async def test_an_end_that_changes_nothing_tells_nothing(store: Store) -> None:
    await bring_to(store, RoomState.LIVE, session_id="s")
    assert (await session(store, "first", session_id="s", created_at=NOW + 1)).effect
    assert (await session(store, "second", session_id="s", created_at=NOW + 2)).effect == ""
