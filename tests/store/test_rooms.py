"""Rooms: one open entry each, taken in order, changed by their owner alone, ended with their session."""

import asyncio

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, arrival
from tests.support.place import Place
from tests.support.rooms import ask, bring_to, move, newest, session, states, take_one
from whereby_trigger.store import ROOM_TRANSITIONS, Room, RoomClaim, RoomMove, RoomState, Store, every_room
from whereby_trigger.store.states import OVER, OWNED

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
ELSEWHERE = "acme.whereby.com/elsewhere"
WAYS = [(before, after) for before in RoomState for after in RoomState]
BUSY = (STARTING, LIVE)


# One open entry for each room


async def test_the_first_request_lets_the_room_wait(place: Place, store: Store) -> None:
    assert await ask(store, webhook="a", session_id="s") == RoomClaim(True, WAITING, None)
    room = await newest(store)
    assert (room.key, room.url, room.state, room.owner) == (ROOM, f"https://{ROOM}", WAITING, None)
    assert (room.webhook, room.attempt, room.queued_at, room.since) == ("a", 0, place.clock.now(), place.clock.now())


async def test_a_request_for_a_room_that_waits_adds_nothing(store: Store) -> None:
    await ask(store)
    assert await ask(store) == RoomClaim(False, WAITING, None)
    assert await states(store) == [WAITING]


@pytest.mark.parametrize("state", BUSY)
async def test_a_request_for_a_room_with_an_assistant_starts_nothing_and_names_its_replica(
    replicas: Replicas, state: RoomState
) -> None:
    one, two = await replicas(), await replicas()
    room = await bring_to(one, state)
    assert await ask(two) == RoomClaim(False, state, one.replica)
    assert await move(one, room, ENDED)
    assert await states(one) == [ENDED]


@pytest.mark.parametrize("state", sorted(OVER))
async def test_a_request_for_a_room_that_is_done_with_starts_anew(store: Store, state: RoomState) -> None:
    await bring_to(store, state)
    assert await ask(store) == RoomClaim(True, WAITING, None)
    assert await states(store) == [state, WAITING]
    assert (await take_one(store)).attempt == 1


async def test_a_request_for_a_room_that_is_ending_waits_and_starts_next(store: Store) -> None:
    ending = await bring_to(store, ENDING, webhook="a")
    assert await ask(store, webhook="b", session_id="s") == RoomClaim(False, ENDING, store.replica, successor=True)
    assert await store.take(10) == []
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED, WAITING]
    assert (await take_one(store)).webhook == "b"


async def test_however_many_ask_while_a_room_is_ending_one_starts_next(store: Store) -> None:
    ending = await bring_to(store, ENDING)
    await asyncio.gather(*(ask(store, webhook=str(n)) for n in range(10)))
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED, WAITING]
    await move(store, await take_one(store), ENDED)
    assert await states(store) == [ENDED, ENDED]


@pytest.mark.parametrize("state", BUSY)
async def test_a_success_between_the_request_to_stop_and_the_end_starts_next(store: Store, state: RoomState) -> None:
    old = await bring_to(store, state, session_id="old")
    await session(store, "new", started=True, session_id="new", created_at=NOW + 5)
    claim = await ask(store, webhook="b", session_id="new", asked_at=NOW + 5)
    assert claim == RoomClaim(False, ENDING, store.replica, successor=True)
    await move(store, old, ENDED)
    assert await states(store) == [ENDED, WAITING]


async def test_requests_at_once_from_several_replicas_open_one_entry(replicas: Replicas) -> None:
    stores = [await replicas() for _ in range(3)]
    claims = await asyncio.gather(*(ask(stores[n % 3], webhook=str(n)) for n in range(10)))
    assert sum(claim.new for claim in claims) == 1
    assert await states(stores[0]) == [WAITING]


async def test_requests_at_once_for_ten_rooms_open_ten_entries(store: Store) -> None:
    claims = await asyncio.gather(*(ask(store, f"acme.whereby.com/{n}") for n in range(10)))
    assert all(claim.new for claim in claims)
    assert len(await store.take(20)) == 10


# Taken in order


async def test_rooms_are_taken_in_the_order_in_which_they_were_asked_for(store: Store) -> None:
    for key in "cab":
        await ask(store, f"acme.whereby.com/{key}")
    first = await store.take(2)
    assert [room.key[-1] for room in first] == ["c", "a"]
    assert [(room.state, room.owner, room.attempt) for room in first] == [(STARTING, store.replica, 1)] * 2
    assert [room.key[-1] for room in await store.take(2)] == ["b"]
    assert await store.take(2) == []


async def test_without_a_slot_nothing_is_taken(store: Store) -> None:
    await ask(store)
    assert await store.take(0) == []
    assert await states(store) == [WAITING]


async def test_a_room_that_pauses_is_not_taken_before_its_time_and_holds_up_nobody(place: Place, store: Store) -> None:
    await ask(store)
    await ask(store, ELSEWHERE)
    (failed,) = await store.take(1)
    assert await store.move(RoomMove(failed.id, WAITING, "restart", delay=5, restarts=1))
    place.clock.jump(4)
    assert [room.key for room in await store.take(10)] == [ELSEWHERE]
    place.clock.jump(1)
    (again,) = await store.take(10)
    assert (again.key, again.attempt, again.restarts) == (ROOM, 2, 1)


async def test_a_room_that_has_waited_for_longer_than_max_age_is_not_taken(place: Place, store: Store) -> None:
    for key in ("old", "young"):
        await ask(store, f"acme.whereby.com/{key}")
        await place.pass_time(60, store)
    assert [room.key[-5:] for room in await store.take(10, max_age=100)] == ["young"]
    assert await states(store) == [WAITING, STARTING]


async def test_a_pause_before_a_restart_does_not_count_as_waiting_for_an_assistant(place: Place, store: Store) -> None:
    await ask(store)
    failed = await take_one(store)
    assert await store.move(RoomMove(failed.id, WAITING, "restart", delay=15, restarts=3))
    await place.pass_time(14, store)
    await store.take_over(max_age=10)
    assert await states(store) == [WAITING]
    await place.pass_time(10, store)
    await store.take_over(max_age=10)
    (again,) = await store.take(10, max_age=10)
    assert (again.attempt, again.restarts) == (2, 3)


async def test_after_the_pause_before_a_restart_a_room_waits_for_max_age(place: Place, store: Store) -> None:
    await ask(store)
    failed = await take_one(store)
    assert await store.move(RoomMove(failed.id, WAITING, "restart", delay=15, restarts=3))
    await place.pass_time(26, store)
    assert await store.take(10, max_age=10) == []
    await store.take_over(max_age=10)
    assert await states(store) == [ENDED]


async def test_a_room_that_has_waited_for_just_max_age_is_taken(place: Place, store: Store) -> None:
    await ask(store)
    await place.pass_time(100, store)
    assert len(await store.take(10, max_age=100)) == 1


async def test_of_several_replicas_that_take_at_once_each_room_goes_to_one(replicas: Replicas) -> None:
    stores = [await replicas() for _ in range(3)]
    for n in range(10):
        await ask(stores[0], f"acme.whereby.com/{n}")
    taken = await asyncio.gather(*(store.take(4) for store in stores * 2))
    keys = [room.key for rooms in taken for room in rooms]
    assert sorted(keys) == sorted(f"acme.whereby.com/{n}" for n in range(10))


async def test_a_taken_room_brings_the_webhook_that_fired(store: Store) -> None:
    await store.add(arrival("before"))
    fired = await store.add(arrival("a", body=b'{"fired": 1}'))
    await store.add(arrival("after"))
    await ask(store, webhook="a")
    room = await take_one(store)
    assert (room.webhook, room.body, room.seq) == ("a", b'{"fired": 1}', fired.seq)


async def test_a_room_asked_for_by_hand_hears_what_comes_from_here_on(store: Store) -> None:
    await store.add(arrival("before"))
    last = await store.add(arrival("last"))
    await ask(store)
    room = await take_one(store)
    assert (room.webhook, room.body, room.seq) == (None, None, last.seq)


# Changed along the table, by the owner alone


def test_the_table_speaks_of_every_state() -> None:
    assert set(ROOM_TRANSITIONS) == set(RoomState)
    assert {state for state, following in ROOM_TRANSITIONS.items() if not following} == OVER
    assert set(RoomState) - OVER - OWNED == {WAITING}


@pytest.mark.parametrize(("before", "after"), WAYS, ids=lambda state: state)
async def test_a_room_moves_where_the_table_lets_it(store: Store, before: RoomState, after: RoomState) -> None:
    room = await bring_to(store, before)
    # From waiting, a room goes on by being taken or asked to stop, since nobody owns it.
    allowed = after in ROOM_TRANSITIONS[before] and before is not WAITING
    assert await move(store, room, after) is allowed
    moved = await newest(store)
    assert moved.state is (after if allowed else before)
    assert moved.owner == (store.replica if moved.state in OWNED else None)


@pytest.mark.parametrize("state", sorted(OWNED))
@pytest.mark.parametrize("after", RoomState)
async def test_a_replica_that_does_not_own_a_room_changes_nothing(
    replicas: Replicas, state: RoomState, after: RoomState
) -> None:
    owner, other = await replicas(), await replicas()
    room = await bring_to(owner, state)
    assert not await move(other, room, after)
    assert await newest(owner) == room


async def test_a_late_finisher_changes_nothing_of_the_room_that_follows(store: Store) -> None:
    old = await bring_to(store, ENDED)
    await bring_to(store, LIVE)
    assert not await move(store, old, FAILED)
    assert await states(store) == [ENDED, LIVE]


async def test_a_move_keeps_what_it_does_not_name(place: Place, store: Store) -> None:
    await ask(store)
    room = await take_one(store)
    assert await store.move(RoomMove(room.id, LIVE, "there", pid=4711, restarts=2))
    place.clock.jump(2)
    assert await store.move(RoomMove(room.id, ENDING, "asked to"))
    ending = await newest(store)
    assert (ending.pid, ending.restarts, ending.reason, ending.since) == (4711, 2, "asked to", place.clock.now())
    assert await store.move(RoomMove(room.id, ENDED, "left"))
    ended = await newest(store)
    assert (ended.pid, ended.owner, ended.restarts) == (None, None, 2)


async def test_a_room_that_is_to_wait_again_but_was_asked_to_end_has_ended(place: Place, store: Store) -> None:
    room = await bring_to(store, LIVE)
    await store.stop(ROOM, "stopped by hand")
    assert await move(store, room, WAITING, "raised: restart 1 of 3")
    ended = await newest(store)
    assert (ended.state, ended.reason) == (ENDED, "stopped by hand")
    place.clock.jump(20)
    assert await store.take(10) == []


# Stopped


async def test_stopping_a_room_that_waits_ends_it_unstarted(place: Place, store: Store) -> None:
    await ask(store)
    place.clock.jump(1)
    assert await store.stop(ROOM, "stopped by hand") is WAITING
    room = await newest(store)
    assert (room.state, room.reason, room.since, room.attempt) == (ENDED, "stopped by hand", place.clock.now(), 0)
    assert await store.take(10) == []


@pytest.mark.parametrize("state", sorted(OWNED))
async def test_a_request_to_stop_stands_with_the_room_for_its_owner_to_see(
    replicas: Replicas, state: RoomState
) -> None:
    owner, other = await replicas(), await replicas()
    await bring_to(owner, state)
    assert await owner.stopping() == []
    assert await other.stop(ROOM, "stopped by hand") is state
    (mine,) = await owner.stopping()
    assert (mine.state, mine.stop) == (state, "stopped by hand")
    assert await other.stopping() == []


async def test_the_first_reason_to_stop_stands(store: Store) -> None:
    await bring_to(store, LIVE)
    await store.stop(ROOM, "first")
    await store.stop(ROOM, "second")
    assert (await newest(store)).stop == "first"


@pytest.mark.parametrize("state", [None, *sorted(OVER)])
async def test_where_nothing_is_open_there_is_nothing_to_stop(store: Store, state: RoomState | None) -> None:
    if state is not None:
        await bring_to(store, state)
    before = await store.rooms()
    assert await store.stop(ROOM, "stopped by hand") is None
    assert await store.rooms() == before


async def test_stopping_a_room_that_is_ending_also_forgets_what_would_start_next(store: Store) -> None:
    ending = await bring_to(store, ENDING)
    await ask(store)
    await store.stop(ROOM, "stopped by hand")
    await move(store, ending, ENDED)
    assert await states(store) == [ENDED]


# Listed and forgotten


async def test_rooms_are_listed_newest_first(store: Store) -> None:
    for n in range(3):
        await ask(store, f"acme.whereby.com/{n}")
    assert [room.key[-1] for room in await store.rooms()] == ["2", "1", "0"]
    assert [room.key[-1] for room in await store.rooms(limit=2)] == ["2", "1"]


async def test_every_room_is_read_a_page_at_a_time_and_none_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.store.protocol.PAGE", 2)
    read, pages = store.rooms, []

    async def rooms(**given: int) -> list[Room]:
        pages.append(await read(**given))
        # Changes by others between two pages put nothing in a wrong place.
        await ask(store, f"acme.whereby.com/later {len(pages)}")
        return pages[-1]

    for n in range(5):
        await ask(store, f"acme.whereby.com/{n}")
    monkeypatch.setattr(store, "rooms", rooms)
    assert [room.key[-1] async for room in every_room(store)] == ["4", "3", "2", "1", "0"]
    assert [len(page) for page in pages] == [2, 2, 1, 0]


async def test_pruning_forgets_rooms_that_are_done_with_and_no_others(place: Place, store: Store) -> None:
    for n, state in enumerate(reversed(RoomState)):
        await bring_to(store, state, key=f"acme.whereby.com/{n}")
    await store.prune(place.clock.now())
    assert len(await states(store)) == 6
    await store.prune(place.clock.now() + 1)
    assert await states(store) == [ENDING, LIVE, STARTING, WAITING]
