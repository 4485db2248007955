"""Leases: what a replica owns is its own while it lives, and somebody else's soon after it is dead or frozen."""

import asyncio
import signal

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import ROOM, arrival, decision, record
from tests.support.place import TTL, Place
from tests.support.replica import replica_that_takes
from tests.support.rooms import ask, bring_to, move, newest, owned, session, states, take_one
from tests.support.until import eventually
from whereby_trigger.store import RoomState, Store
from whereby_trigger.store.states import OWNED

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
LEFT = pytest.mark.parametrize(("state", "then"), [(STARTING, WAITING), (LIVE, WAITING), (ENDING, ENDED)])


# The living


@pytest.mark.parametrize("state", sorted(OWNED))
async def test_no_room_of_a_live_replica_is_taken_over(replicas: Replicas, state: RoomState) -> None:
    owner, other = await replicas(), await replicas()
    room = await bring_to(owner, state)
    assert await other.take_over() == 0
    assert await newest(other) == room


async def test_a_renewed_lease_outlasts_any_time(place: Place, replicas: Replicas) -> None:
    owner, other = await replicas(), await replicas()
    room = await bring_to(owner, LIVE)
    for _ in range(5):
        place.clock.jump(TTL - 1)
        assert await owner.renew(TTL)
        assert await other.take_over() == 0
    assert await newest(owner) == room


async def test_a_lease_that_has_run_out_is_not_renewed(place: Place, store: Store) -> None:
    place.clock.jump(TTL + 1)
    assert not await store.renew(TTL)
    assert not await store.renew(TTL)


async def test_a_replica_whose_lease_has_run_out_takes_nothing_over(place: Place, replicas: Replicas) -> None:
    dead, store = await replicas(), await replicas()
    await dead.add(arrival("a"))
    await bring_to(dead, LIVE)
    await place.crash(dead)
    place.clock.jump(TTL + 1)
    assert await store.take_over() == 0
    await store.rejoin(TTL)
    assert await store.take_over() == 2


async def test_a_replica_whose_lease_has_run_out_takes_no_room(place: Place, store: Store) -> None:
    await ask(store)
    place.clock.jump(TTL + 1)
    assert await store.take(10) == []
    await store.rejoin(TTL)
    assert (await take_one(store)).owner == store.replica


# The dead


@LEFT
async def test_a_dead_replicas_rooms_wait_and_its_ending_ones_end(
    place: Place, replicas: Replicas, state: RoomState, then: RoomState
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, state)
    await place.bury(dead, other)
    assert await other.take_over() == 1
    room = await newest(other)
    assert (room.state, room.owner, room.pid) == (then, None, None)
    assert dead.replica in room.reason


async def test_a_dead_replicas_room_is_taken_with_the_next_attempt_and_no_restart_used_up(
    place: Place, replicas: Replicas
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, LIVE)
    await place.bury(dead, other)
    await other.take_over()
    taken = await take_one(other)
    assert (taken.owner, taken.attempt, taken.restarts) == (other.replica, 2, 0)


@pytest.mark.parametrize("state", sorted(OWNED))
async def test_a_dead_replicas_room_that_was_asked_to_end_has_ended(
    place: Place, replicas: Replicas, state: RoomState
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, state, session_id="s")
    await session(other, "end", session_id="s")
    await place.bury(dead, other)
    await other.take_over()
    assert await states(other) == [ENDED]
    assert await other.take(10) == []


async def test_what_was_to_start_after_a_dead_replicas_room_starts(place: Place, replicas: Replicas) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, ENDING)
    await ask(other, webhook="next")
    await place.bury(dead, other)
    await other.take_over()
    assert await states(other) == [ENDED, WAITING]
    assert (await take_one(other)).webhook == "next"


async def test_the_rooms_of_a_replica_dead_for_longer_than_max_age_end_unstarted(
    place: Place, replicas: Replicas
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, LIVE)
    await place.bury(dead, other)
    await place.pass_time(TTL + 100, other)
    await other.take_over(max_age=99)
    room = await newest(other)
    assert (room.state, room.attempt) == (ENDED, 1)
    assert "max_age" in room.reason


async def test_what_was_to_start_after_the_room_of_a_replica_dead_for_longer_than_max_age_does_not_start(
    place: Place, replicas: Replicas
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, ENDING)
    await ask(other, asked_at=place.clock.now())
    await place.bury(dead, other)
    await place.pass_time(TTL + 100, other)
    await other.take_over(max_age=99)
    assert await states(other) == [ENDED]


async def test_however_long_its_replica_is_dead_a_room_is_followed_by_who_asked_just_now(
    place: Place, replicas: Replicas
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, ENDING, asked_at=place.clock.now())
    await place.bury(dead, other)
    await place.pass_time(TTL + 100, other)
    await ask(other, webhook="next", asked_at=place.clock.now())
    await other.take_over(max_age=99)
    assert await states(other) == [ENDED, WAITING]
    assert (await take_one(other)).webhook == "next"


async def test_however_old_a_room_is_it_waits_when_its_replica_died_just_now(place: Place, replicas: Replicas) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, LIVE)
    await place.pass_time(1100, dead, other)
    await place.bury(dead, other)
    await other.take_over(max_age=1000)
    assert await states(other) == [WAITING]


async def test_the_rooms_of_a_dead_replica_wait_however_much_shorter_than_its_lease_max_age_is(
    place: Place, replicas: Replicas
) -> None:
    dead, other = await replicas(), await replicas()
    await bring_to(dead, LIVE)
    await place.pass_time(TTL / 2, other)
    await place.crash(dead)
    if place.takeover_within:
        await place.pass_time(TTL / 2 + 1, other)
    await other.take_over(max_age=TTL / 3)
    assert await states(other) == [WAITING]


async def test_a_room_that_has_waited_for_longer_than_max_age_ends_unstarted(place: Place, store: Store) -> None:
    for key, seconds in (("old", 20), ("young", 90)):
        await ask(store, f"acme.whereby.com/{key}")
        await place.pass_time(seconds, store)
    await store.take_over(max_age=100)
    assert await states(store) == [ENDED, WAITING]
    assert "max_age" in (await store.rooms())[1].reason


async def test_a_dead_replicas_rooms_are_taken_over_once(place: Place, replicas: Replicas) -> None:
    dead, *heirs = [await replicas() for _ in range(4)]
    for n in range(20):
        await ask(dead, f"acme.whereby.com/{n}")
    await dead.take(20)
    await place.bury(dead, *heirs)
    assert sum(await asyncio.gather(*(heir.take_over() for heir in heirs))) == 20
    taken = await asyncio.gather(*(heir.take(20) for heir in heirs))
    assert sorted(room.key for rooms in taken for room in rooms) == sorted(f"acme.whereby.com/{n}" for n in range(20))


async def test_a_killed_process_leaves_its_room_to_others(place: Place, store: Store) -> None:
    await ask(store)
    with replica_that_takes(place.url) as other:
        owner = other.line("took").split()[1]
        assert await store.take_over() == 0
        assert (await newest(store)).owner == owner
        other.kill()
    await place.outlast_the_dead(store)
    await eventually(store.take_over)
    assert (await take_one(store)).attempt == 2


async def test_a_frozen_process_keeps_its_room_until_its_lease_has_run_out(place: Place, store: Store) -> None:
    await ask(store)
    with replica_that_takes(place.url) as frozen:
        frozen.line("took")
        frozen.popen.send_signal(signal.SIGSTOP)
        assert await store.take_over() == 0
        await place.outlast_leases(store)
        assert await store.take_over() == 1
    assert (await take_one(store)).attempt == 2


# The frozen


@LEFT
async def test_a_frozen_replicas_rooms_are_taken_over_when_its_lease_has_run_out(
    place: Place, replicas: Replicas, state: RoomState, then: RoomState
) -> None:
    frozen, other = await replicas(), await replicas()
    await bring_to(frozen, state)
    place.clock.jump(TTL - 1)
    assert await other.take_over() == 0
    assert await other.renew(TTL)
    place.clock.jump(2)
    assert await other.take_over() == 1
    assert await states(other) == [then]


async def test_a_replica_that_thaws_can_change_nothing_of_what_was_taken_over(place: Place, replicas: Replicas) -> None:
    frozen, other = await replicas(), await replicas()
    added = await frozen.add(arrival("a"))
    room = await bring_to(frozen, LIVE)
    await place.outlast_leases(other)
    await other.take_over()
    for state in RoomState:
        assert not await move(frozen, room, state)
    assert not await frozen.decide(decision(added.seq, "a"))
    assert not await frozen.renew(TTL)
    assert await owned(frozen) == []
    assert await frozen.pending(0, 10) == []


async def test_what_a_thawed_replica_stores_under_its_old_id_is_taken_over(place: Place, replicas: Replicas) -> None:
    frozen, other = await replicas(), await replicas()
    await bring_to(frozen, LIVE)
    await place.outlast_leases(other)
    await other.take_over()
    await frozen.add(arrival("late"))
    await place.bury(frozen, other)
    await other.take_over()
    assert (await record(other, "late")).owner == other.replica


# A new id


async def test_a_replica_that_rejoins_has_a_new_id_and_owns_nothing(replicas: Replicas) -> None:
    store, other = await replicas(), await replicas()
    await store.add(arrival("a"))
    await bring_to(store, LIVE)
    old = store.replica
    await store.rejoin(TTL)
    assert store.replica not in (old, other.replica)
    assert await owned(store) == []
    assert await store.pending(0, 10) == []
    assert await store.renew(TTL)


async def test_what_a_replica_gave_up_by_rejoining_is_taken_over_at_once(replicas: Replicas) -> None:
    store, other = await replicas(), await replicas()
    await store.add(arrival("a"))
    await bring_to(store, LIVE)
    await store.rejoin(TTL)
    assert await other.take_over() == 2
    assert (await take_one(other)).attempt == 2


async def test_a_replica_that_rejoined_may_take_over_what_it_had_itself(replicas: Replicas) -> None:
    store = await replicas()
    await bring_to(store, LIVE)
    await store.rejoin(TTL)
    assert await store.take_over() == 1
    assert (await take_one(store)).owner == store.replica


async def test_no_id_is_used_twice(store: Store) -> None:
    ids = {store.replica}
    for n in range(5):
        await store.rejoin(TTL)
        ids.add(store.replica)
        assert len(ids) == n + 2


# Leaving


@LEFT
async def test_a_replica_that_closes_gives_its_rooms_back_at_once(
    replicas: Replicas, state: RoomState, then: RoomState
) -> None:
    leaving, other = await replicas(), await replicas()
    await bring_to(leaving, state)
    await leaving.close()
    room = await newest(other)
    assert (room.state, room.owner, room.restarts) == (then, None, 0)
    assert "died" not in room.reason


async def test_a_replica_that_closes_gives_its_pending_webhooks_back_as_not_to_blame(replicas: Replicas) -> None:
    leaving, other = await replicas(), await replicas()
    added = await leaving.add(arrival("a"))
    await leaving.begin_attempt(added.seq)
    await leaving.close()
    assert (await record(other, "a")).owner is None
    assert await other.take_over() == 1
    (row,) = await other.pending(0, 10)
    assert (row.takeovers, row.attempts) == (1, 0)
    assert row.crashes == 0


async def test_others_hear_at_once_that_a_replica_has_left(replicas: Replicas) -> None:
    told = asyncio.Event()
    other, leaving = await replicas(told.set), await replicas()
    await bring_to(leaving, LIVE)
    told.clear()
    await leaving.close()
    await asyncio.wait_for(told.wait(), 5)
    assert (await take_one(other)).key == ROOM
