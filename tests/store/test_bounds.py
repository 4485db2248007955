"""Bounds: an assistant leaves an empty room, and any room after a time; an empty room gets none again."""

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM
from tests.support.counts import count, counted, people
from tests.support.place import Place
from tests.support.rooms import ask, bring_to, move, newest, states, take_one
from whereby_trigger.store import UNBOUNDED, Bounds, RoomClaim, RoomMove, RoomState, Store
from whereby_trigger.store.presence import UNCOUNTED

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
ELSEWHERE = "acme.whereby.com/elsewhere"
EMPTY, LONG = Bounds(60.0, None), Bounds(None, 3600.0)
NOBODY, TOO_LONG = "nobody was in the room for 60 s", "an assistant for 1 h: max_duration"


# The rule


@pytest.mark.parametrize(
    ("bounds", "empty", "lasted", "reason"),
    [
        (EMPTY, 60.0, 1.0, NOBODY),
        (EMPTY, 59.999, 1e9, None),
        (EMPTY, None, 1e9, None),
        (EMPTY, -5.0, None, None),
        (LONG, 1e9, 3600.0, TOO_LONG),
        (LONG, 1e9, 3599.999, None),
        (LONG, 1e9, None, None),
        (Bounds(60.0, 3600.0), 60.0, 3600.0, NOBODY),
        (UNBOUNDED, 1e9, 1e9, None),
    ],
)
def test_a_bound_is_reached_when_its_time_is_up_and_never_while_that_is_unknown(
    bounds: Bounds, empty: float | None, lasted: float | None, reason: str | None
) -> None:
    assert bounds.reached(empty, lasted) == reason


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (12 * 3600.0, "12 h"),
        (5400.0, "90 min"),
        (60.0, "60 s"),
        (1.0, "1 s"),
        (0.25, "0.25 s"),
        (4000.0, "4,000 s"),
        (100000.5, "100,000.5 s"),
    ],
)
def test_a_reason_names_the_bound_as_a_person_would(seconds: float, words: str) -> None:
    assert Bounds(seconds, None).reached(seconds, None) == f"nobody was in the room for {words}"


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(60.0, 43200.0), "leaves an empty room after 60 s and any room after 12 h"),
        (EMPTY, "leaves an empty room after 60 s"),
        (LONG, "leaves any room after 1 h"),
        (UNBOUNDED, "stays until its session ends"),
    ],
)
def test_bounds_read_as_a_person_would_say_them(bounds: Bounds, words: str) -> None:
    assert bounds.words == words


# An assistant is asked to end


@pytest.mark.parametrize("state", [STARTING, LIVE])
async def test_an_assistant_is_asked_to_leave_when_its_room_was_empty_for_the_time(
    place: Place, store: Store, state: RoomState
) -> None:
    await bring_to(store, state)
    await people(store, 0)
    await place.pass_time(59, store)
    assert await store.stopping(EMPTY) == []
    await place.pass_time(1, store)
    (room,) = await store.stopping(EMPTY)
    assert (room.state, room.stop) == (state, NOBODY)
    assert await store.stopping(EMPTY) == [room]
    assert await move(store, room, ENDING)
    assert await move(store, room, ENDED)


@pytest.mark.parametrize("state", [STARTING, LIVE])
async def test_an_assistant_is_asked_to_leave_after_max_duration(place: Place, store: Store, state: RoomState) -> None:
    await bring_to(store, state)
    await people(store, 2)
    await place.pass_time(3599, store)
    assert await store.stopping(LONG) == []
    await place.pass_time(1, store)
    (room,) = await store.stopping(LONG)
    assert (room.state, room.stop) == (state, TOO_LONG)


async def test_a_room_of_which_nobody_knows_who_is_in_it_is_never_empty(place: Place, store: Store) -> None:
    await bring_to(store, LIVE)
    await people(store, 0, ELSEWHERE)
    await place.pass_time(1000, store)
    assert await store.stopping(EMPTY) == []


async def test_a_room_that_somebody_joins_without_a_count_is_no_longer_known_to_be_empty(
    place: Place, store: Store
) -> None:
    await bring_to(store, LIVE)
    await people(store, 0)
    await place.pass_time(59, store)
    await people(store, UNCOUNTED)
    await place.pass_time(1000, store)
    assert await store.stopping(EMPTY) == []
    await people(store, 0)
    await place.pass_time(60, store)
    assert [room.stop for room in await store.stopping(EMPTY)] == [NOBODY]


@pytest.mark.parametrize(
    ("counted_in", "counted_at", "is_empty"),
    [("old", -1, False), ("old", 1, True), ("new", -1, True), (None, -1, True)],
)
async def test_that_nobody_was_left_of_an_earlier_session_says_nothing_of_who_has_come_to_this_one(
    place: Place, store: Store, counted_in: str | None, counted_at: float, is_empty: bool
) -> None:
    await store.add(counted("left", count(counted_at, 0, session_id=counted_in)))
    await bring_to(store, LIVE, session_id="new", asked_at=NOW)
    await place.pass_time(60, store)
    assert [room.stop for room in await store.stopping(EMPTY)] == ([NOBODY] if is_empty else [])


async def test_a_person_who_comes_back_in_time_starts_the_time_over(place: Place, store: Store) -> None:
    await bring_to(store, LIVE)
    await people(store, 0)
    await place.pass_time(59, store)
    await people(store, 1)
    await place.pass_time(1000, store)
    assert await store.stopping(EMPTY) == []
    await people(store, 0)
    await place.pass_time(59, store)
    assert await store.stopping(EMPTY) == []
    await place.pass_time(1, store)
    assert [room.stop for room in await store.stopping(EMPTY)] == [NOBODY]


async def test_in_a_room_that_was_empty_when_it_was_asked_for_there_is_the_whole_time_to_come(
    place: Place, store: Store
) -> None:
    await people(store, 0)
    await place.pass_time(1000, store)
    await bring_to(store, LIVE)
    await place.pass_time(59, store)
    assert await store.stopping(EMPTY) == []
    await place.pass_time(1, store)
    assert [room.stop for room in await store.stopping(EMPTY)] == [NOBODY]


async def test_a_bound_that_is_lifted_stops_nobody(place: Place, store: Store) -> None:
    await bring_to(store, LIVE)
    await people(store, 0)
    await place.pass_time(4000, store)
    assert await store.stopping(UNBOUNDED) == await store.stopping() == []
    assert [room.stop for room in await store.stopping(Bounds(5000.0, 3600.0))] == [TOO_LONG]


async def test_who_stored_that_the_room_is_empty_need_not_be_who_runs_its_assistant(
    place: Place, replicas: Replicas
) -> None:
    owner, other = await replicas(), await replicas()
    await bring_to(owner, LIVE)
    await people(other, 0)
    await place.pass_time(60, owner, other)
    assert await other.stopping(EMPTY) == []
    assert (await newest(owner)).stop is None
    assert [room.stop for room in await owner.stopping(EMPTY)] == [NOBODY]


async def test_the_first_reason_to_stop_stays_when_a_bound_is_reached(place: Place, store: Store) -> None:
    await bring_to(store, LIVE)
    await people(store, 0)
    await store.stop(ROOM, "stopped by hand")
    await place.pass_time(60, store)
    assert [room.stop for room in await store.stopping(EMPTY)] == ["stopped by hand"]


async def test_a_success_after_a_bound_was_reached_starts_the_next_assistant(place: Place, store: Store) -> None:
    await bring_to(store, LIVE)
    await people(store, 0)
    await place.pass_time(60, store)
    (room,) = await store.stopping(EMPTY)
    await people(store, 1)
    assert await ask(store, webhook="b") == RoomClaim(False, ENDING, store.replica, successor=True)
    assert await move(store, room, ENDED)
    assert (await take_one(store)).webhook == "b"


async def test_many_rooms_reach_a_bound_at_once(place: Place, store: Store) -> None:
    for n in range(12):
        await ask(store, f"acme.whereby.com/{n}")
    assert len(await store.take(12)) == 12
    await place.pass_time(3600, store)
    assert [room.stop for room in await store.stopping(LONG)] == [TOO_LONG] * 12


# The time goes on over restarts, takeovers and hand-overs


@pytest.mark.parametrize("again", ["a restart", "a takeover", "a hand-over"])
async def test_max_duration_counts_from_the_first_start(place: Place, replicas: Replicas, again: str) -> None:
    first, other = await replicas(), await replicas()
    room = await bring_to(first, LIVE)
    await place.pass_time(1800, first, other)
    if again == "a takeover":
        await place.bury(first, other)
        await other.take_over()
    else:
        assert await first.move(RoomMove(room.id, WAITING, again))
    assert [taken.attempt for taken in await other.take(10, bounds=LONG)] == [2]
    await place.pass_time(1801, other)
    assert [room.stop for room in await other.stopping(LONG)] == [TOO_LONG]


async def test_time_spent_waiting_for_a_slot_does_not_count(place: Place, store: Store) -> None:
    await ask(store)
    await place.pass_time(3600, store)
    await store.end_waiting(LONG)
    assert len(await store.take(1, bounds=LONG)) == 1
    await place.pass_time(3599, store)
    assert await store.stopping(LONG) == []


async def test_the_next_assistant_of_a_room_has_a_max_duration_of_its_own(place: Place, store: Store) -> None:
    await bring_to(store, ENDED)
    await place.pass_time(3000, store)
    await bring_to(store, LIVE)
    await place.pass_time(3000, store)
    assert await store.stopping(LONG) == []


# A room that is known to be empty gets no assistant


@pytest.mark.parametrize("again", ["a restart", "a takeover"])
async def test_an_empty_room_gets_no_assistant_again_and_its_entry_ends_with_the_reason(
    place: Place, replicas: Replicas, again: str
) -> None:
    first, other = await replicas(), await replicas()
    room = await bring_to(first, LIVE)
    await people(other, 0)
    if again == "a takeover":
        await place.crash(first)
        await place.pass_time(31, other)
        await other.take_over()
    else:
        assert await first.move(RoomMove(room.id, WAITING, again))
        await place.pass_time(31, other)
    assert await other.take(10, bounds=EMPTY) == []
    await other.end_waiting(EMPTY)
    assert await states(other) == [WAITING]
    await place.pass_time(29, other)
    assert await other.take(10, bounds=EMPTY) == []
    await other.end_waiting(EMPTY)
    ended = await newest(other)
    assert (ended.state, ended.reason, ended.since) == (ENDED, NOBODY, place.clock.now())
    assert await other.take(10, bounds=EMPTY) == []


async def test_an_empty_room_to_which_somebody_comes_back_gets_its_assistant_again(place: Place, store: Store) -> None:
    room = await bring_to(store, LIVE)
    await people(store, 0)
    assert await store.move(RoomMove(room.id, WAITING, "restart"))
    await place.pass_time(59, store)
    assert await store.take(10, bounds=EMPTY) == []
    await people(store, 1)
    assert [taken.attempt for taken in await store.take(10, bounds=EMPTY)] == [2]


async def test_a_room_that_is_not_known_to_be_empty_gets_its_assistant_again(store: Store) -> None:
    room = await bring_to(store, LIVE)
    assert await store.move(RoomMove(room.id, WAITING, "restart"))
    assert len(await store.take(10, bounds=EMPTY)) == 1


async def test_without_leave_when_empty_an_empty_room_gets_its_assistant_again(store: Store) -> None:
    room = await bring_to(store, LIVE)
    await people(store, 0)
    assert await store.move(RoomMove(room.id, WAITING, "restart"))
    assert len(await store.take(10, bounds=LONG)) == 1


async def test_an_empty_room_gets_its_first_assistant_until_the_time_is_up(place: Place, store: Store) -> None:
    await people(store, 0)
    for key in (ROOM, ELSEWHERE):
        await people(store, 0, key)
        await ask(store, key)
    assert [room.key for room in await store.take(1, bounds=EMPTY)] == [ROOM]
    await place.pass_time(60, store)
    assert await store.take(10, bounds=EMPTY) == []
    await store.end_waiting(EMPTY)
    assert [(room.key, room.stop) for room in await store.stopping(EMPTY)] == [(ROOM, NOBODY)]
    ended = await newest(store)
    assert (ended.key, ended.state, ended.reason, ended.attempt) == (ELSEWHERE, ENDED, NOBODY, 0)


async def test_a_room_past_max_duration_gets_no_assistant_again_and_ends_with_the_reason(
    place: Place, store: Store
) -> None:
    room = await bring_to(store, LIVE)
    await place.pass_time(3599, store)
    assert await store.move(RoomMove(room.id, WAITING, "restart", delay=1))
    await place.pass_time(1, store)
    assert await store.take(10, bounds=LONG) == []
    await store.end_waiting(LONG)
    assert [(room.state, room.reason) for room in await store.rooms()] == [(ENDED, TOO_LONG)]


async def test_rooms_kept_waiting_because_they_are_empty_hold_up_no_other(store: Store) -> None:
    for key in (ROOM, ELSEWHERE):
        await people(store, 0, key)
        await ask(store, key)
    for room in await store.take(2):
        assert await store.move(RoomMove(room.id, WAITING, "restart"))
    await ask(store, "acme.whereby.com/next")
    assert [room.key for room in await store.take(1, bounds=EMPTY)] == ["acme.whereby.com/next"]


# Successors


@pytest.mark.parametrize(("kept_after", "starts"), [(0, False), (10, True), (3590, True)])
async def test_a_success_of_what_may_be_the_same_meeting_does_not_lengthen_max_duration(
    place: Place, store: Store, kept_after: float, starts: bool
) -> None:
    room = await bring_to(store, LIVE, session_id=None)
    await place.pass_time(kept_after, store)
    assert (await ask(store, webhook="later", session_id=None, asked_at=NOW + kept_after + 1)).successor
    await place.pass_time(3600 - kept_after, store)
    assert [room.stop for room in await store.stopping(LONG)] == [TOO_LONG]
    assert await move(store, room, ENDING)
    assert await move(store, room, ENDED)
    taken = await store.take(10, bounds=LONG)
    assert bool(taken) is starts
    await place.pass_time(kept_after, store)
    await store.end_waiting(LONG)
    assert [room.stop for room in await store.stopping(LONG)] == ([TOO_LONG] if starts else [])
    assert (await newest(store)).state is (STARTING if starts else ENDED)


async def test_of_a_meeting_that_is_known_to_be_another_max_duration_counts_from_its_own_start(
    place: Place, store: Store
) -> None:
    room = await bring_to(store, LIVE, session_id="old")
    await ask(store, webhook="later", session_id="new", asked_at=NOW + 1)
    await place.pass_time(3600, store)
    assert await move(store, room, ENDING)
    assert await move(store, room, ENDED)
    assert await store.take(10, bounds=LONG)
    assert await store.stopping(LONG) == []
