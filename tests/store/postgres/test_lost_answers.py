"""A commit whose answer is lost is found again, and is neither done twice nor mistaken for somebody else's."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from reliability.link import Link
from tests.store.conftest import Replicas
from tests.support.arrivals import NOW, ROOM, arrival, decision, record
from tests.support.counts import at, presence, say
from tests.support.postgres import Server, database_of
from tests.support.rooms import request
from tests.support.supervised import Assistants, Supervised
from tests.support.until import eventually
from whereby_trigger.assist import Supervisor
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import (
    Presence,
    RefusalCount,
    Room,
    RoomMove,
    RoomState,
    RunOutcome,
    RunQuery,
    RunReport,
    State,
    Store,
)
from whereby_trigger.store.postgres import PostgresStore, webhooks
from whereby_trigger.store.postgres.writer import WRITERS

pytestmark = pytest.mark.anyio


async def test_an_arrival_is_no_duplicate_of_itself(postgres: Server, url: str, opened: Replicas) -> None:
    async with Link(postgres.port) as link:
        store = await opened(link.through(url))
        await store.add(arrival("before"))
        link.tear(b"lost")
        added = await store.add(arrival("lost"))
        assert link.torn == 1
        assert not added.duplicate
        assert (await record(store, "lost")).deliveries == 1


async def test_an_arrival_at_another_replica_meanwhile_is_a_duplicate(
    postgres: Server, url: str, opened: Replicas
) -> None:
    async with Link(postgres.port) as link:
        store, other = await opened(link.through(url)), await opened(url)
        await other.add(arrival("same", received_at=NOW + 1))
        await store.add(arrival("before"))
        link.tear(b"same")
        assert (await store.add(arrival("same"))).duplicate
        assert link.torn == 1


@pytest.mark.parametrize("rooms", [(ROOM, "acme.whereby.com/elsewhere"), (ROOM, ROOM)])
async def test_deliveries_are_stored_with_up_to_two_counts_of_each_room_by_one_statement(
    url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch, rooms: tuple[str, str]
) -> None:
    store = await opened(url)
    # Do not look for a COMMIT on the wire: the lease is renewed over the same link.
    begun: list[Any] = []
    monkeypatch.setattr(webhooks, "transaction", begun.append)
    await asyncio.gather(*(say(store, f"{n}", 9, n, room=room) for n, room in enumerate(rooms)))
    assert begun == []
    assert (await presence(store, rooms[1])).humans == 1


@pytest.mark.parametrize(
    ("ids", "torn"),
    # Two of a room are added by one statement; more in a transaction, whose COMMIT has an end, unlike "COMMITTED".
    [(("lost",), b"lost"), (("lost", "beside it"), b"lost"), (("lost", "beside it", "too"), b"COMMIT\0")],
)
async def test_a_count_is_not_merged_again_over_one_that_came_after_it(
    postgres: Server, url: str, opened: Replicas, ids: tuple[str, ...], torn: bytes
) -> None:
    async with Link(postgres.port) as link:
        store, other = await opened(link.through(url)), await opened(url)
        await say(store, "before", 0, 5)
        link.tear(torn)
        adding = asyncio.gather(*(say(store, id, 9, 1) for id in ids))
        await eventually(lambda: link.torn == 1)
        await say(other, "of the same time", 9, 2)
        assert not any(added.duplicate for added in await adding)
        assert await presence(other) == Presence(2, 0, at(9), at(9))


async def test_a_decision_holds_and_is_known_to_be_ours(postgres: Server, url: str, opened: Replicas) -> None:
    async with Link(postgres.port) as link:
        store = await opened(link.through(url))
        first, second = await store.add(arrival("first")), await store.add(arrival("second"))
        assert await store.decide(decision(first.seq, "first"))
        link.tear(b"second")
        assert await store.decide(decision(second.seq, "second", State.SKIPPED, reason="no"))
        assert link.torn == 1
        assert (await record(store, "second")).state is State.SKIPPED


async def test_refusals_whose_answer_was_lost_count_once(postgres: Server, url: str, opened: Replicas) -> None:
    counted = RefusalCount(int(NOW), "wrong signature", "one", 401, 7)
    async with Link(postgres.port) as link:
        store = await opened(link.through(url))
        await store.add_refusals([])
        link.tear(b"wrong signature")
        with pytest.raises(StoreUnavailable):
            await store.add_refusals([counted])
        assert link.torn == 1
        await store.add_refusals([counted])
        assert await store.refusals(NOW - 60, NOW + 60) == [counted]


async def test_a_room_that_was_moved_is_known_to_be_ours(postgres: Server, url: str, opened: Replicas) -> None:
    async with Link(postgres.port) as link:
        store = await opened(link.through(url))
        await store.request(request())
        (room,) = await store.take(1)
        link.tear(b"COMMIT")
        assert await store.move(RoomMove(room.id, RoomState.LIVE, "there"))
        assert link.torn == 1
        (moved,) = await store.rooms()
        assert (moved.state, moved.owner) == (RoomState.LIVE, store.replica)
        (run,) = await store.find_runs(RunQuery())
        assert (run.live_at, run.ended_at) == (moved.since, None)


async def test_a_run_whose_end_was_recorded_keeps_it(postgres: Server, url: str, opened: Replicas) -> None:
    async with Link(postgres.port) as link:
        store = await opened(link.through(url))
        await store.request(request())
        (room,) = await store.take(1)
        link.tear(b"COMMIT")
        report = RunReport(RunOutcome.REFUSED, exit_code=75, output="not now")
        assert await store.move(RoomMove(room.id, RoomState.WAITING, "exited with 75", run=report))
        assert link.torn == 1
        (again,) = await store.take(1)
        assert [(run.attempt, run.outcome, run.exit_code) for run in await store.find_runs(RunQuery())] == [
            (2, None, None),
            (1, RunOutcome.REFUSED, 75),
        ]
        assert again.attempt == 2


async def test_a_room_that_was_taken_is_given_again_and_to_nobody_else(
    postgres: Server, url: str, opened: Replicas
) -> None:
    async with Link(postgres.port) as link:
        store, other = await opened(link.through(url)), await opened(url)
        assert await store.take(1) == []
        await other.request(request())
        link.tear(store.replica.encode())
        with pytest.raises(StoreUnavailable):
            await store.take(1)
        assert link.torn == 1
        assert await other.take(1) == []
        (taken,) = await store.take(1)
        assert (taken.owner, taken.attempt) == (store.replica, 1)
        (run,) = await store.find_runs(RunQuery())
        assert (run.entry, run.attempt, run.replica) == (taken.id, 1, store.replica)
        assert await store.take(1) == []


class DrainedByLoss:
    """A store that makes the supervisor drain as soon as the answer to a take is lost."""

    def __init__(self, store: Store, supervisor: Supervisor) -> None:
        self._store = store
        self._supervisor = supervisor

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def take(self, *asked: Any) -> list[Room]:
        try:
            return await self._store.take(*asked)
        except StoreUnavailable:
            await self._supervisor.drain(0)
            raise


async def test_a_room_that_was_taken_unknowingly_before_a_drain_goes_to_another(postgres: Server, url: str) -> None:
    assistants = Assistants()
    async with (
        Link(postgres.port) as link,
        Supervised(PostgresStore(link.through(url)), assistants.stay, max_rooms=0) as drained,
        Supervised(PostgresStore(url), assistants.stay, max_rooms=0) as other,
    ):
        drained.supervisor._store = DrainedByLoss(drained.store, drained.supervisor)  # type: ignore[assignment]
        assert await drained.store.take(1) == []
        await other.ask()
        link.tear(drained.store.replica.encode())
        drained.supervisor.slots = 1
        await eventually(lambda: link.torn == 1)
        other.supervisor.slots = 1
        assert (await other.reaches(RoomState.LIVE)).owner == other.store.replica
    assert assistants.started == [("visit-1", 2)]


async def test_a_room_that_is_taken_after_its_taking_was_given_up_gets_its_assistant(
    postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of the database that was frozen meanwhile still does what it was sent before."""
    monkeypatch.setitem(WRITERS, "rooms", 0.5)
    monkeypatch.setattr("whereby_trigger.assist.supervisor.OWN_EVERY", 0.05)
    assistants = Assistants()
    async with Supervised(PostgresStore(url), assistants.stay, max_rooms=0) as one:
        assert await one.store.take(1) == []
        found = postgres.run(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%WITH taken AS%' AND pid <> pg_backend_pid()",
            database_of(url),
        )
        with frozen(int(found)):
            with pytest.raises(StoreUnavailable):
                await one.store.take(1)
            assert await one.store.take(1) == []
            await one.ask()
        await eventually(lambda: one.store.find_runs(RunQuery()))
        one.supervisor.slots = 1
        await one.reaches(RoomState.LIVE, attempt=2)
    assert assistants.started == [("visit-1", 2)]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_what_waits_for_a_database_that_was_killed_is_done_when_it_is_back(
    postgres: Server, url: str, opened: Replicas
) -> None:
    store = await opened(url)
    first = await store.add(arrival("first"))
    postgres.kill()
    adding, deciding = store.add(arrival("second")), store.decide(decision(first.seq, "first"))
    with pytest.raises(StoreUnavailable, match="the database is unavailable"):
        await store.take_over()
    assert not asyncio.ensure_future(deciding).done()
    postgres.start()
    assert not (await adding).duplicate
    assert await deciding
    assert (await record(store, "first")).state is State.FIRED


async def test_a_delivery_waits_for_a_database_that_is_away_only_as_long_as_whereby_does(
    postgres: Server, url: str, opened: Replicas
) -> None:
    store = await opened(url)
    postgres.kill()
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable):
            await store.add(arrival("first"))


async def test_a_database_that_falls_silent_is_left_and_asked_anew(
    postgres: Server, url: str, opened: Replicas
) -> None:
    async with Link(postgres.port) as link:
        store = await opened(link.through(url))
        first = await store.add(arrival("first"))
        link.silence()
        deciding = asyncio.ensure_future(store.decide(decision(first.seq, "first")))
        with pytest.raises(StoreUnavailable):
            await store.renew(30.0)
        link.heal()
        assert await deciding
        assert await store.renew(30.0)
