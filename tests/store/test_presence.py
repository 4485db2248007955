"""Who is in a room, as every store keeps it: by the newest count, shared by replicas, forgotten in time."""

import asyncio
from collections.abc import Iterator
from itertools import compress
from itertools import count as numbers

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, arrival
from tests.support.counts import TOO_MANY, at, count, counted, humans_stored_at, presence, refuse_too_many, say
from tests.support.place import Place
from tests.support.rooms import ask, bring_to
from whereby_trigger.errors import StoreError
from whereby_trigger.store import UNKNOWN, Added, Arrival, Count, Presence, Query, RoomState, State, Store
from whereby_trigger.store.presence import UNCOUNTED, RoomCounts, keeps_time, merged, presence_of, together

pytestmark = pytest.mark.anyio

ELSEWHERE = "acme.whereby.com/elsewhere"


async def test_who_is_in_a_room_is_unknown_until_a_count_arrives(store: Store) -> None:
    await store.add(arrival("a"))
    assert await store.presences(frozenset({ROOM, ELSEWHERE})) == {ROOM: UNKNOWN, ELSEWHERE: UNKNOWN}
    assert await store.presences(frozenset()) == {}


async def test_a_count_is_kept_with_the_delivery_that_carried_it(store: Store) -> None:
    await store.add(counted("a", count(0, 2, 1, session_id="s")))
    assert await presence(store) == Presence(2, 1, at(0), at(0), "s")


async def test_a_delivery_with_a_count_comes_back_with_who_is_in_its_room_as_of_its_commit(store: Store) -> None:
    one, elsewhere, uncounted = await asyncio.gather(
        say(store, "a", 5, 2), say(store, "c", 3, 7, room=ELSEWHERE), store.add(arrival("d"))
    )
    late = await say(store, "b", 0, 9)
    assert [added.counts and added.counts.humans for added in (one, late, elsewhere)] == [2, 2, 7]
    assert [added.counts for added in (uncounted, await say(store, "a", 5, 2))] == [None, None]
    again = (await say(store, "e", 1, 4)).counts
    assert again is not None
    assert presence_of(again) == await presence(store)


async def test_the_newest_count_holds_and_an_older_one_that_comes_late_does_not(store: Store) -> None:
    for id, seconds, humans in (("a", 0, 1), ("b", 20, 2), ("c", 10, 3)):
        await say(store, id, seconds, humans)
    assert await presence(store) == Presence(2, 0, at(20), at(20))


async def test_of_two_counts_of_the_same_time_the_later_arrival_holds_and_a_duplicate_is_none(store: Store) -> None:
    await say(store, "a", 0, 1)
    await say(store, "b", 0, 2)
    assert (await say(store, "a", 0, 1)).duplicate
    assert (await presence(store)).humans == 2
    await asyncio.gather(say(store, "c", 5, 3), say(store, "d", 5, 4), say(store, "c", 5, 3))
    assert (await presence(store)).humans == 4


async def test_a_duplicate_beside_counts_of_other_rooms_counts_for_nothing(store: Store) -> None:
    await say(store, "a", 0, 1)
    await say(store, "b", 0, 2)
    again, elsewhere, uncounted = await asyncio.gather(
        say(store, "a", 0, 1), say(store, "c", 5, 3, room=ELSEWHERE), store.add(arrival("d"))
    )
    assert [again.duplicate, elsewhere.duplicate, uncounted.duplicate] == [True, False, False]
    assert [again.counts, elsewhere.counts and elsewhere.counts.humans, uncounted.counts] == [None, 3, None]
    assert [(await presence(store, room)).humans for room in (ROOM, ELSEWHERE)] == [2, 3]


async def test_who_joins_without_a_count_leaves_nobody_knowing_who_is_there_until_the_next_count(store: Store) -> None:
    await say(store, "a", 0, 0)
    await say(store, "b", 10, UNCOUNTED, UNCOUNTED)
    assert await presence(store) == Presence(changed_at=at(10))
    assert await store.occupied(2) == {ROOM: Presence(changed_at=at(10))}
    await say(store, "late", 5, 0)
    assert (await presence(store)).humans is None
    await say(store, "c", 20, 2)
    assert await presence(store) == Presence(2, 0, at(20), at(20))
    await say(store, "late too", 15, UNCOUNTED, UNCOUNTED)
    assert await presence(store) == Presence(2, 0, at(20), at(20))


async def test_a_bot_that_comes_changes_nothing_about_since_when_the_humans_are_there(store: Store) -> None:
    await say(store, "a", 0, 2)
    await say(store, "b", 9, 2, bots=1)
    assert await presence(store) == Presence(2, 1, at(0), at(9))


async def test_rooms_are_counted_apart_though_their_counts_come_together(store: Store) -> None:
    said = [say(store, str(n), n, n % 7, room=f"{ROOM}-{n % 50}") for n in range(600)]
    await asyncio.gather(*said)
    rooms = frozenset(f"{ROOM}-{n}" for n in range(50))
    found = await store.presences(rooms)
    assert {room: found[room].humans for room in rooms} == {f"{ROOM}-{n % 50}": n % 7 for n in range(550, 600)}


async def test_replicas_share_who_is_in_a_room_and_write_it_at_once_without_losing_the_newest(
    replicas: Replicas,
) -> None:
    one, two = await replicas(), await replicas()
    rooms = [f"{ROOM}-{n}" for n in range(20)]
    await asyncio.gather(
        *(say(store, f"{room} {n}", n, n % 5, room=room) for n in range(20) for room in rooms for store in (one, two))
    )
    assert {found.humans for found in (await one.presences(frozenset(rooms))).values()} == {4}
    assert await one.presences(frozenset(rooms)) == await two.presences(frozenset(rooms))


async def test_a_delivery_that_is_refused_leaves_no_count_and_takes_no_other_along(store: Store) -> None:
    refused = counted("refused", count(9, 9))
    refused = Arrival(refused.id, "", ROOM, b"", NOW, State.FIRED, count=refused.count)
    outcomes = await asyncio.gather(say(store, "a", 0, 1), store.add(refused), return_exceptions=True)
    assert isinstance(outcomes[1], StoreError)
    await say(store, "b", 1, 2)
    assert await presence(store) == Presence(2, 0, at(1), at(1))


async def test_a_delivery_is_stored_with_its_count_or_not_at_all(place: Place, store: Store) -> None:
    await refuse_too_many(place)
    outcomes = await asyncio.gather(
        say(store, "a", 0, 1),
        say(store, "b", 1, TOO_MANY, room=ELSEWHERE),
        say(store, "c", 2, 2),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Added, StoreError, Added]
    assert {found.id for found in await store.find(Query())} == {"a", "c"}
    assert await presence(store) == Presence(2, 0, at(2), at(2))


async def test_a_room_that_is_taken_says_who_is_in_it(store: Store) -> None:
    await say(store, "a", 0, 2)
    await ask(store)
    await ask(store, ELSEWHERE)
    taken = {room.key: room.presence for room in await store.take(10)}
    assert taken == {ROOM: Presence(2, 0, at(0), at(0)), ELSEWHERE: UNKNOWN}


async def test_the_end_of_a_session_leaves_who_is_there(store: Store) -> None:
    await say(store, "a", 0, 2)
    await bring_to(store, RoomState.ENDED)
    assert (await presence(store)).humans == 2


async def test_the_store_notes_by_its_own_clock_when_the_number_of_humans_changed(place: Place, store: Store) -> None:
    async def noted(id: str, seconds: float, humans: int, bots: int = 0) -> float:
        await say(store, id, seconds, humans, bots)
        return await humans_stored_at(place)

    began = place.clock.now()
    assert await noted("a", 0, 0) == pytest.approx(began)
    place.clock.jump(10)
    assert await noted("a bot", 10, 0, 1) == pytest.approx(began)
    assert await noted("somebody", 20, 1) == pytest.approx(began + 10)
    place.clock.jump(10)
    assert await noted("nobody", 30, 0) == pytest.approx(began + 20)
    place.clock.jump(10)
    await asyncio.gather(say(store, "there", 40, 1), say(store, "gone", 41, 0))
    assert await humans_stored_at(place) == pytest.approx(began + 30)


async def test_the_presence_of_a_room_is_forgotten_with_its_last_count_unless_its_entry_is_open(store: Store) -> None:
    crowd = [counted(f"old {n}", count(0, 1, room=f"{ROOM}-{n}"), received_at=NOW - 10) for n in range(1200)]
    await asyncio.gather(*map(store.add, crowd))
    await store.add(counted("open", count(0, 2), received_at=NOW - 10))
    await ask(store)
    await store.add(counted("old", count(0, 3, room=ELSEWHERE), received_at=NOW - 10))
    await store.add(counted("new", count(1, 3, room=ELSEWHERE), received_at=NOW))
    await store.prune(NOW)
    found = await store.presences(frozenset({ROOM, ELSEWHERE} | {one.room for one in crowd if one.room}))
    assert {key for key, one in found.items() if one.humans is not None} == {ROOM, ELSEWHERE}
    await store.stop(ROOM, "by hand")
    await store.prune(NOW)
    assert await presence(store) == UNKNOWN


async def test_two_counts_that_come_at_once_are_kept_as_long_as_the_one_received_last(store: Store) -> None:
    newest, received_last = count(1, 3), count(0, 2)
    await asyncio.gather(
        store.add(counted("newest", newest, received_at=NOW - 10)),
        store.add(counted("received last", received_last, received_at=NOW)),
    )
    await store.prune(NOW)
    assert (await presence(store)).humans == 3


async def test_what_is_counted_after_a_room_was_forgotten_begins_then(store: Store) -> None:
    await store.add(counted("pruned", count(0, 2), received_at=NOW - 10))
    await store.prune(NOW)
    assert await presence(store) == UNKNOWN
    said = await say(store, "a", 10, 2)
    assert await presence(store) == Presence(2, 0, at(10), at(10))
    assert said.counts is not None
    assert presence_of(said.counts) == await presence(store)
    await store.drop([], ROOM, NOW)
    await say(store, "b", 5, 2)
    assert await presence(store) == Presence(2, 0, at(5), at(5))


COUNTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6)
"""Counts as they arrive: their time and the number of humans."""


@pytest.fixture
def rooms() -> Iterator[int]:
    return numbers()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(COUNTS, min_size=1, max_size=4))
def test_a_store_says_what_the_rule_says_for_any_counts_in_any_batches(
    runs: asyncio.Runner, two: tuple[Store, Store], rooms: Iterator[int], batches: list[list[tuple[int, int]]]
) -> None:
    room = f"{ROOM}-{next(rooms)}"
    said = [[count(seconds, humans, room=room) for seconds, humans in batch] for batch in batches]
    last, found = runs.run(_stored_in_batches(two, room, said))
    (stored,) = together(said[0])
    for batch in said[1:]:
        (arrived,) = together(batch)
        stored = merged(stored, arrived)
    assert found == presence_of(stored)
    assert last.counts == stored


async def _stored_in_batches(two: tuple[Store, Store], room: str, batches: list[list[Count]]) -> tuple[Added, Presence]:
    added: list[Added] = []
    for n, batch in enumerate(batches):
        arrivals = [counted(f"{room} {n} {m}", one) for m, one in enumerate(batch)]
        added = await asyncio.gather(*map(two[n % 2].add, arrivals))
    return added[-1], await presence(two[0], room)


TWO_AT_ONCE = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(UNCOUNTED, 2)), min_size=2, max_size=2
)
"""Two webhooks of a room that arrive together: each one's number, which may repeat, its time and humans."""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=st.lists(st.tuples(TWO_AT_ONCE, TWO_AT_ONCE), min_size=1, max_size=4))
def test_of_two_counts_of_a_room_that_come_at_once_those_count_that_are_no_duplicates(
    runs: asyncio.Runner,
    two: tuple[Store, Store],
    rooms: Iterator[int],
    batches: list[tuple[list[tuple[int, int, int]], ...]],
) -> None:
    names = [f"{ROOM}-{next(rooms)}" for _ in range(2)]
    seen: set[str] = set()
    known: dict[str, RoomCounts] = {}
    for n, batch in enumerate(batches):
        arrivals = [
            counted(
                f"{name} {which}", count(seconds, humans, room=name, session_id=f"{n} {seconds}"), received_at=NOW + n
            )
            for name, said in zip(names, batch, strict=True)
            for which, seconds, humans in said
        ]
        first = {one.id: one for one in reversed(arrivals) if one.id not in seen}
        seen |= first.keys()
        new = [first.get(one.id) is one for one in arrivals]
        for room in together(one.count for one in compress(arrivals, new) if one.count):
            known[room.key] = merged(known[room.key], room) if room.key in known else room
        added = runs.run(_added_at_once(two[n % 2], arrivals))
        assert [not one.duplicate for one in added] == new
        assert [one.counts for one in compress(added, new)] == [known[str(one.room)] for one in compress(arrivals, new)]
        assert not any(one.counts for one in added if one.duplicate)
    assert runs.run(_presences(two[0], names)) == {name: presence_of(known[name]) for name in names}


async def _added_at_once(store: Store, arrivals: list[Arrival]) -> list[Added]:
    return await asyncio.gather(*map(store.add, arrivals))


async def _presences(store: Store, rooms: list[str]) -> dict[str, Presence]:
    return await store.presences(frozenset(rooms))


@pytest.fixture
def runs() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def two(place: Place, runs: asyncio.Runner) -> Iterator[tuple[Store, Store]]:
    stores = (place.replica(), place.replica())
    for store in stores:
        runs.run(store.open(lambda: None))
    yield stores
    for store in stores:
        runs.run(store.close())


def test_the_time_goes_on_only_if_the_number_of_humans_did() -> None:
    def stored(*counts: Count) -> bool:
        (before,) = together(counts[:1])
        (arrived,) = together(counts[1:])
        return keeps_time(before, merged(before, arrived))

    assert stored(count(0, 0), count(5, 0))
    assert stored(count(5, 0), count(0, 0))
    assert not stored(count(0, 0), count(5, 1))
    assert not stored(count(0, 0), count(5, 1), count(6, 0))
