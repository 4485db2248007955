"""Runs: one row for each attempt of an assistant, begun and ended in the commits that move its room."""

from collections.abc import Awaitable, Callable

import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM
from tests.support.place import Place
from tests.support.rooms import ask, bring_to, move, newest, session, take_one
from whereby_trigger.store import (
    Room,
    RoomMove,
    RoomQuery,
    RoomState,
    RunOutcome,
    RunQuery,
    RunRecord,
    RunReport,
    Store,
)

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
ELSEWHERE = "acme.whereby.com/elsewhere"
MAX_AGE = 40.0


async def runs(store: Store, **query: object) -> list[RunRecord]:
    return await store.find_runs(RunQuery(**query))  # type: ignore[arg-type]


async def only_run(store: Store) -> RunRecord:
    (run,) = await runs(store)
    return run


# Begun


async def test_a_room_that_waits_has_no_run(store: Store) -> None:
    await ask(store)
    assert await runs(store) == []


async def test_a_run_begins_when_its_room_is_taken_and_is_live_when_its_assistant_is(
    place: Place, store: Store
) -> None:
    await ask(store, webhook="w1")
    place.clock.jump(1)
    room = await take_one(store)
    taken = place.clock.now()
    run = await only_run(store)
    assert (run.entry, run.key, run.webhook, run.replica) == (room.id, ROOM, "w1", store.replica)
    assert (run.attempt, run.started_at, run.live_at, run.ended_at, run.outcome) == (1, taken, None, None, None)
    place.clock.jump(2)
    assert await store.move(RoomMove(room.id, LIVE, "", pid=4711))
    run = await only_run(store)
    assert (run.pid, run.started_at, run.live_at, run.ended_at) == (4711, taken, taken + 2, None)


async def test_each_attempt_is_a_run_of_its_own_with_what_it_left_behind(place: Place, store: Store) -> None:
    await ask(store)
    for attempt, code in enumerate((75, 3, 0), 1):
        room = await take_one(store)
        await move(store, room, LIVE)
        place.clock.jump(1)
        report = RunReport(RunOutcome.REFUSED, exit_code=code, output=f"line of {attempt}")
        assert await store.move(RoomMove(room.id, WAITING, f"exited with {code}", run=report))
    assert [(run.attempt, run.exit_code, run.reason, run.output) for run in await runs(store)] == [
        (3, 0, "exited with 0", "line of 3"),
        (2, 3, "exited with 3", "line of 2"),
        (1, 75, "exited with 75", "line of 1"),
    ]
    assert {run.entry for run in await runs(store)} == {(await newest(store)).id}


# Ended


@pytest.mark.parametrize(
    ("state", "outcome"),
    [(ENDED, RunOutcome.LEFT), (FAILED, RunOutcome.FAILED), (WAITING, RunOutcome.HANDED_OVER)],
)
async def test_the_move_that_ends_a_run_says_how_it_ended(
    place: Place, store: Store, state: RoomState, outcome: RunOutcome
) -> None:
    room = await bring_to(store, LIVE)
    place.clock.jump(5)
    assert await move(store, room, state, "why")
    run = await only_run(store)
    assert (run.outcome, run.reason, run.ended_at) == (outcome, "why", place.clock.now())


@pytest.mark.parametrize("outcome", RunOutcome)
async def test_what_the_replica_saw_is_recorded(store: Store, outcome: RunOutcome) -> None:
    room = await bring_to(store, LIVE)
    report = RunReport(outcome, signal=9, exception="ValueError", output="Grüße\n🎥")
    assert await store.move(RoomMove(room.id, FAILED, "why", run=report))
    run = await only_run(store)
    assert (run.outcome, run.exit_code, run.signal, run.exception) == (outcome, None, 9, "ValueError")
    assert run.output == "Grüße\n🎥"


async def end_session(store: Store) -> None:
    await session(store, "ended", session_id="s", created_at=NOW + 5)


async def begin_another(store: Store) -> None:
    await session(store, "started", started=True, session_id="next", created_at=NOW + 5)


async def stop(store: Store) -> None:
    await store.stop(ROOM, "stopped by hand")


@pytest.mark.parametrize(
    ("asks", "outcome", "reason"),
    [
        (end_session, RunOutcome.SESSION_OVER, "the session has ended"),
        (begin_another, RunOutcome.SESSION_OVER, "another session has started"),
        (stop, RunOutcome.STOPPED, "stopped by hand"),
    ],
)
async def test_a_run_that_was_asked_to_end_was_stopped_even_if_its_replica_did_not_know(
    store: Store, asks: Callable[[Store], Awaitable[None]], outcome: RunOutcome, reason: str
) -> None:
    room = await bring_to(store, LIVE, session_id="s")
    await asks(store)
    assert (await only_run(store)).ended_at is None
    report = RunReport(RunOutcome.FAILED, exit_code=143, output="asked to end")
    assert await store.move(RoomMove(room.id, WAITING, "exited with 143: restart 1 of 3", run=report))
    run = await only_run(store)
    assert (run.outcome, run.reason, run.exit_code, run.output) == (outcome, reason, 143, "asked to end")


@pytest.mark.parametrize("state", [STARTING, LIVE, ENDING])
async def test_a_replica_that_dies_leaves_a_run_that_says_so(
    place: Place, replicas: Replicas, state: RoomState
) -> None:
    gone, store = await replicas(), await replicas()
    await bring_to(gone, state)
    await place.bury(gone, store)
    await store.take_over()
    run = await only_run(store)
    assert (run.outcome, run.reason) == (RunOutcome.REPLICA_DIED, f"its replica {gone.replica} died")
    assert (run.replica, run.ended_at) == (gone.replica, place.clock.now())
    if state is not ENDING:
        assert (await take_one(store)).attempt == 2
        assert [(run.attempt, run.replica, run.ended_at is None) for run in await runs(store)] == [
            (2, store.replica, True),
            (1, gone.replica, False),
        ]


async def test_a_replica_that_died_long_ago_leaves_a_run_that_says_so(place: Place, replicas: Replicas) -> None:
    gone, store = await replicas(), await replicas()
    await bring_to(gone, LIVE)
    await place.crash(gone)
    await place.pass_time(2 * MAX_AGE, store)
    await store.take_over(MAX_AGE)
    run = await only_run(store)
    assert run.outcome is RunOutcome.REPLICA_DIED
    assert run.reason == f"its replica {gone.replica} died longer than max_age ago"


async def test_a_replica_that_died_after_it_was_asked_to_end_the_run_left_it_to_its_death(
    place: Place, replicas: Replicas
) -> None:
    gone, store = await replicas(), await replicas()
    await bring_to(gone, LIVE)
    await stop(store)
    await place.bury(gone, store)
    await store.take_over()
    run = await only_run(store)
    assert (run.outcome, run.reason) == (RunOutcome.REPLICA_DIED, f"its replica {gone.replica} died")
    assert (await newest(store)).reason == "stopped by hand"


async def test_a_replica_that_stops_hands_its_runs_over(replicas: Replicas) -> None:
    leaving, store = await replicas(), await replicas()
    await bring_to(leaving, LIVE)
    await leaving.close()
    assert (await only_run(store)).outcome is RunOutcome.HANDED_OVER


async def test_a_replica_that_is_too_late_changes_nothing_of_the_run_that_follows(
    place: Place, replicas: Replicas
) -> None:
    slow, store = await replicas(), await replicas()
    room = await bring_to(slow, LIVE)
    await place.outlast_leases(store)
    await store.take_over()
    again = await take_one(store)
    before = await runs(store)
    assert not await move(slow, room, FAILED)
    assert not await move(slow, room, LIVE)
    assert await runs(store) == before
    assert (before[0].entry, before[0].attempt, before[0].ended_at) == (again.id, 2, None)


async def test_a_room_that_is_ended_before_it_was_taken_has_no_run(store: Store) -> None:
    await ask(store)
    await stop(store)
    assert await runs(store) == []


# Read


async def fill(place: Place, store: Store, *names: str) -> None:
    """Run each room's assistant for 10 s, one after the other; the last one keeps running."""
    for name in names:
        room = await bring_to(store, LIVE, key=f"acme.whereby.com/{name}")
        await place.pass_time(10, store)
        if name is not names[-1]:
            await move(store, room, ENDED)


async def test_runs_are_read_newest_first_and_at_most_the_limit(place: Place, store: Store) -> None:
    await fill(place, store, "a", "b", "c")
    assert [run.key[-1] for run in await runs(store)] == ["c", "b", "a"]
    assert [run.key[-1] for run in await runs(store, limit=2)] == ["c", "b"]


async def test_the_runs_of_an_entry_are_no_others(place: Place, store: Store) -> None:
    await fill(place, store, "a", "a", "b")
    entries = [room.id for room in reversed(await store.rooms())]
    for entry in entries:
        assert [run.entry for run in await runs(store, entry=entry)] == [entry]


@pytest.mark.parametrize(
    ("room", "found"),
    [
        ("acme.whereby.com/a", ["acme.whereby.com/a"]),
        ("/a", ["other.whereby.com/a", "acme.whereby.com/a"]),
        ("a", []),
        ("/gr%C3%B6%C3%9Fe", ["acme.whereby.com/gr%C3%B6%C3%9Fe"]),
        ("/größe", ["acme.whereby.com/gr%C3%B6%C3%9Fe"]),
        ("acme.whereby.com/nobody", []),
    ],
)
async def test_a_room_is_found_by_its_key_or_its_name(store: Store, room: str, found: list[str]) -> None:
    for key in ("acme.whereby.com/a", "acme.whereby.com/ab", "other.whereby.com/a", "acme.whereby.com/gr%C3%B6%C3%9Fe"):
        await bring_to(store, ENDED, key=key)
    assert [run.key for run in await runs(store, room=room)] == found
    assert [entry.key for entry in await store.find_rooms(RoomQuery(room=room))] == found


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (None, None, "cba"),
        (0, 10, "a"),
        (0, 10.5, "ba"),
        (10.5, 11, "b"),
        (10, 11, "ba"),
        (25, None, "c"),
        (1000, None, "c"),
        (None, 20, "ba"),
        (None, 0, ""),
    ],
)
async def test_what_was_there_at_a_time_is_found(
    place: Place, store: Store, since: float | None, until: float | None, found: str
) -> None:
    start = place.clock.now()
    await fill(place, store, "a", "b", "c")
    times = {"since": since, "until": until}
    given = {name: start + moment for name, moment in times.items() if moment is not None}
    assert "".join(run.key[-1] for run in await runs(store, **given)) == found
    query = RoomQuery(since=given.get("since"), until=given.get("until"))
    assert "".join(room.key[-1] for room in await store.find_rooms(query)) == found


async def test_entries_are_found_by_id_webhook_and_state_and_at_most_the_limit(store: Store) -> None:
    for n, state in enumerate(RoomState):
        await bring_to(store, state, key=f"acme.whereby.com/{n}", webhook=f"w{n}")
        if state is WAITING:
            # Otherwise the next one would take it too.
            await take_one(store)
    for room in await store.rooms():
        assert await store.find_rooms(RoomQuery(id=room.id)) == [room]
        assert await store.find_rooms(RoomQuery(webhooks=(str(room.webhook), "of no room"))) == [room]
        assert room in await store.find_rooms(RoomQuery(state=room.state))
    assert [room.state for room in await store.find_rooms(RoomQuery(state=FAILED))] == [FAILED]
    assert await store.find_rooms(RoomQuery(webhooks=("w1", "w4"))) == await rooms_of(store, "w4", "w1")
    assert {room.state for room in await store.find_rooms(RoomQuery(open=True))} == {STARTING, LIVE, ENDING}
    assert await store.find_rooms(RoomQuery(limit=2)) == (await store.rooms())[:2]
    assert await store.find_rooms(RoomQuery(id=10**9)) == []


async def rooms_of(store: Store, *webhooks: str) -> list[Room]:
    rooms = {room.webhook: room for room in await store.rooms()}
    return [rooms[webhook] for webhook in webhooks]


# Forgotten


async def test_runs_are_forgotten_with_their_entry_and_those_of_open_entries_after_the_same_time(
    place: Place, store: Store
) -> None:
    await bring_to(store, FAILED)
    room = await bring_to(store, LIVE, key=ELSEWHERE)
    await move(store, room, WAITING)
    place.clock.jump(1)
    again = await take_one(store)
    await store.prune(place.clock.now())
    assert [(run.entry, run.attempt) for run in await runs(store)] == [(again.id, 2)]
    assert [entry.key for entry in await store.rooms()] == [ELSEWHERE]


async def test_a_run_whose_end_an_older_program_did_not_record_is_forgotten_with_its_entry(
    place: Place, store: Store
) -> None:
    room = await bring_to(store, LIVE)
    await place.execute("UPDATE {rooms} SET state = 'ended', owner = NULL, pid = NULL")
    assert (await only_run(store)).entry == room.id
    await store.prune(place.clock.now() + 1)
    assert await runs(store) == []


async def test_an_older_programs_room_moves_without_a_run(place: Place, store: Store) -> None:
    room = await bring_to(store, LIVE)
    await place.execute("DELETE FROM {runs}")
    assert await move(store, room, ENDED)
    assert (await newest(store)).state is ENDED
    assert await runs(store) == []
