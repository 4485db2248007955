"""The supervisor on a real store: one assistant in each room, restarted, stopped, drained and handed over."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from msgspec import structs

from tests.support.arrivals import arrival
from tests.support.clock import JumpingClock
from tests.support.rooms import request
from tests.support.supervised import Assistants, Supervised
from tests.support.until import AT_ONCE, eventually
from whereby_trigger.assist import Session, supervisor
from whereby_trigger.assist.runners import Run, RunEnd, RunResult
from whereby_trigger.assist.supervisor import STARTED_AT_ONCE
from whereby_trigger.errors import AssistantRefused
from whereby_trigger.store import UNBOUNDED, Bounds, Room, RoomState, RunOutcome, RunQuery, WebhooksAfter
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import Webhook, decode, redaction

pytestmark = pytest.mark.anyio

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def store(tmp_path: Path, clock: JumpingClock) -> Callable[[], SqliteStore]:
    return lambda: SqliteStore(f"sqlite:///{tmp_path}/rooms.db", wall=clock.now)


@pytest.fixture
def assistants() -> Assistants:
    return Assistants()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pause before a restart."""
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", (0.0, 0.0, 0.0))


Stores = Callable[[], SqliteStore]


# One in each room


async def test_a_room_that_asks_gets_an_assistant_until_it_leaves(store: Stores, assistants: Assistants) -> None:
    async with Supervised(store(), assistants.stay) as one:
        await one.ask()
        room = await one.reaches(LIVE)
        assert (room.owner, room.attempt) == (one.store.replica, 1)
        assistants.let_go("visit-1")
        assert (await one.reaches(ENDED)).reason == "it left the room"
    assert assistants.started == [("visit-1", 1)]


async def test_a_log_handler_that_fails_keeps_no_room_from_its_end(
    store: Stores, assistants: Assistants, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, supervisor.logger.name)
    async with Supervised(store(), assistants.stay) as one:
        await one.ask()
        await one.reaches(LIVE)
        handler = logging.Handler()
        monkeypatch.setattr(handler, "emit", Mock(side_effect=ConnectionError("the log's service is away")))
        monkeypatch.setattr(supervisor.logger, "handlers", [handler])
        assistants.let_go("visit-1")
        await one.reaches(ENDED)
        monkeypatch.undo()


async def test_however_often_a_room_asks_it_has_one_assistant(store: Stores, assistants: Assistants) -> None:
    async with Supervised(store(), assistants.stay) as one, Supervised(store(), assistants.stay) as two:
        await asyncio.gather(*((one, two)[n % 2].ask() for n in range(10)))
        await one.reaches(LIVE)
        await one.ask()
        await two.ask()
        assert assistants.started == [("visit-1", 1)]


async def test_a_session_is_told_what_fired_and_what_came_after(store: Stores, assistants: Assistants) -> None:
    joined = webhook("room.client.joined", num_clients=1, num_clients_by_role_name={"visitor": 1})
    left = webhook("room.client.left", num_clients=0, num_clients_by_role_name={})
    async with Supervised(store(), assistants.stay) as one, Supervised(store(), assistants.stay, max_rooms=0) as two:
        await one.store.add(arrival(joined.id, body=joined.raw))
        await one.ask(webhook=joined.id)
        await one.reaches(LIVE)
        session = assistants.sessions["visit-1"]
        assert session.webhook == joined
        assert session.humans == 1
        await two.store.add(arrival(left.id, body=left.raw))
        await eventually(lambda: session.humans == 0, within=AT_ONCE)
        assert await anext(session.webhooks()) == left


class CountingStore(SqliteStore):
    """Count the looks at all rooms of a replica."""

    looks = 0

    async def stopping(self, bounds: Bounds = UNBOUNDED) -> list[Room]:
        self.looks += 1
        return await super().stopping(bounds)


async def test_webhooks_that_come_one_after_the_other_lead_to_no_look_each(
    tmp_path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look is at all rooms: with 1,000 of them, 250 webhooks a second took all of a core."""
    monkeypatch.setattr(supervisor, "LOOK", 3600.0)
    monkeypatch.setattr(supervisor, "LONGEST_REST", 3600.0)
    monkeypatch.setattr(supervisor, "REST", math.inf)
    store = CountingStore(f"sqlite:///{tmp_path}/rooms.db")
    async with Supervised(store, assistants.stay) as one:
        await one.ask()
        await one.reaches(LIVE)
        await eventually(lambda: not one.supervisor.starting and one.supervisor._woken._waiters)
        looks = store.looks
        for _ in range(100):
            one.supervisor.wake("acme.whereby.com/visit-1")
            await one.store.newest()
        assert store.looks == looks
        assert one.supervisor.starting, "the look is still to come"
        one.supervisor.wake()
        await eventually(lambda: not one.supervisor.starting)
        assert store.looks == looks + 1


class UnsettledStore(SqliteStore):
    """Return what is recent at each look, as PostgreSQL does: a lower number may still appear."""

    async def webhooks_after(self, after: int, keys: frozenset[str]) -> WebhooksAfter:
        return structs.replace(await super().webhooks_after(after, keys), cursor=after)


async def test_a_webhook_that_is_read_at_each_look_is_redacted_once(
    tmp_path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look redacted all that had come in ten seconds, in the event loop: hundreds, beside many assistants."""
    loads = Mock(wraps=json.loads)
    monkeypatch.setattr(redaction, "json", Mock(wraps=json, loads=loads))
    async with Supervised(UnsettledStore(f"sqlite:///{tmp_path}/rooms.db"), assistants.stay) as one:
        one.supervisor._redact = ("displayName",)
        await one.ask()
        await one.reaches(LIVE)
        for number in range(3):
            joined = webhook("room.client.joined", id=f"joined {number}")
            await one.store.add(arrival(joined.id, body=joined.raw))
            one.supervisor.wake()
            webhooks = assistants.sessions["visit-1"].webhooks()
            assert (await asyncio.wait_for(anext(webhooks), 10)).id == joined.id
    assert loads.call_count == 3


async def test_an_attempt_that_ended_while_older_ones_were_read_is_not_forgotten(
    tmp_path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nobody announces the end of its room, if that ends before it is started again."""
    first = Room(1, "acme.whereby.com/a", "", RoomState.WAITING, None, None, 1, 1, None, None, "", 0, 0)
    second = structs.replace(first, attempt=2)
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), assistants.stay) as one:
        resting = one.supervisor._resting

        async def read(store: object, rooms: object) -> dict[int, Room]:
            # It was about to start, failed meanwhile, and waits once more.
            resting[1] = second
            return {1: structs.replace(first, state=RoomState.STARTING)}

        monkeypatch.setattr(supervisor, "read_again", read)
        resting[1], one.supervisor._look_at_resting = first, 0.0
        await one.supervisor._announce_unstarted()
        assert resting.pop(1) is second


# Slots


async def test_no_more_assistants_run_than_there_are_slots_and_rooms_wait_in_order(
    store: Stores, assistants: Assistants
) -> None:
    names = ["c", "a", "d", "b"]
    async with Supervised(store(), assistants.stay, max_rooms=2) as one:
        for name in names:
            await one.ask(name)
        await one.reaches(LIVE, "a")
        assert one.supervisor.free == 0
        for name in names:
            await eventually(lambda name=name: name in assistants.there)  # type: ignore[misc]
            assistants.let_go(name)
        await one.reaches(ENDED, "b")
    assert [name for name, _ in assistants.started] == names
    assert assistants.most == 2


async def test_a_room_without_a_free_slot_goes_to_a_replica_that_has_one(store: Stores, assistants: Assistants) -> None:
    async with Supervised(store(), assistants.stay, max_rooms=1) as full:
        await full.ask("a")
        await full.ask("b")
        await full.reaches(LIVE, "a")
        async with Supervised(store(), assistants.stay, max_rooms=1) as free:
            assert (await full.reaches(LIVE, "b")).owner == free.store.replica


async def test_a_replica_without_slots_takes_nothing(store: Stores, assistants: Assistants) -> None:
    async with Supervised(store(), assistants.stay, max_rooms=0) as none:
        await none.ask("a")
        async with Supervised(store(), assistants.stay) as other:
            assert (await none.reaches(LIVE, "a")).owner == other.store.replica


class Counted(SqliteStore):
    """Record how many rooms each take asked for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.slots: list[int] = []

    def take(self, slots: int, max_age: float = math.inf, bounds: Bounds = UNBOUNDED) -> Awaitable[list[Room]]:
        self.slots.append(slots)
        return super().take(slots, max_age, bounds)


async def test_very_many_rooms_get_their_assistants_a_few_at_a_time(tmp_path: Path, assistants: Assistants) -> None:
    store = Counted(f"sqlite:///{tmp_path / 'rooms.db'}")
    async with Supervised(store, assistants.stay, max_rooms=100_000) as supervised:
        for n in range(2 * STARTED_AT_ONCE + 1):
            await store.request(request(f"acme.whereby.com/{n}"))
        supervised.supervisor.wake()
        await eventually(lambda: len(assistants.there) == 2 * STARTED_AT_ONCE + 1)
        assert max(store.slots) == STARTED_AT_ONCE


async def test_a_room_that_has_waited_for_longer_than_max_age_gets_no_assistant(
    store: Stores, clock: JumpingClock, assistants: Assistants
) -> None:
    async with Supervised(store(), assistants.stay, max_rooms=0) as none:
        await none.ask("old")
        clock.jump(100)
        await none.ask("young")
        async with Supervised(store(), assistants.stay, max_age=90) as other:
            await other.reaches(LIVE, "young")
            await other.reaches(WAITING, "old")
    assert assistants.started == [("young", 1)]


# Restarts


@pytest.mark.usefixtures("at_once")
async def test_one_that_raises_is_started_three_more_times_and_then_has_failed(store: Stores) -> None:
    attempts = []

    async def raises(session: Session) -> None:
        attempts.append(session.attempt)
        raise ValueError("what went wrong")

    async with Supervised(store(), raises) as one:
        await one.ask()
        room = await one.reaches(FAILED)
        assert attempts == [1, 2, 3, 4]
        assert (room.reason, room.owner, room.restarts) == ("raised ValueError, after 3 restarts", None, 3)
        runs = await one.store.find_runs(RunQuery(entry=room.id))
        assert [run.attempt for run in runs] == [4, 3, 2, 1]
        for run in runs:
            assert (run.outcome, run.exception) == (RunOutcome.FAILED, "ValueError")
            assert "what went wrong" in run.output
            assert run.live_at is not None


@pytest.mark.usefixtures("at_once")
async def test_a_run_that_failed_is_a_warning_and_one_that_failed_for_good_an_error(
    store: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(session: Session) -> None:
        raise ValueError

    caplog.set_level(logging.INFO, "whereby_trigger.assist")
    async with Supervised(store(), fails) as one:
        await one.ask()
        await one.reaches(FAILED)
    levels = [record.levelname for record in caplog.records if "raised ValueError" in record.getMessage()]
    assert levels == ["WARNING", "WARNING", "WARNING", "ERROR"]


@pytest.mark.usefixtures("at_once")
async def test_a_room_that_has_failed_can_be_started_by_hand(store: Stores) -> None:
    attempts = []

    async def raises(session: Session) -> None:
        attempts.append(session.attempt)
        raise ValueError

    async with Supervised(store(), raises) as one:
        await one.ask()
        first = await one.reaches(FAILED)
        await one.ask()

        async def failed_again() -> bool:
            return (await one.reaches(FAILED)).id != first.id

        await eventually(failed_again)
    assert attempts == [1, 2, 3, 4] * 2


async def test_a_restart_waits_for_its_pause_and_the_slot_is_free_meanwhile(
    store: Stores, clock: JumpingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", (3600.0,))
    stays = Assistants()

    async def raises(session: Session) -> None:
        if session.room_name == "/broken":
            raise ValueError
        await stays.stay(session)

    async with Supervised(store(), raises, max_rooms=1) as one:
        await one.ask("broken")
        room = await one.reaches(WAITING, "broken", attempt=1)
        assert (room.reason, room.restarts) == ("raised ValueError: restart 1 of 1", 1)
        await one.ask("fine")
        await one.reaches(LIVE, "fine")
        stays.let_go("fine")
        await one.reaches(ENDED, "fine")
        await one.supervisor.drain(0)
        clock.jump(3000)
        assert await one.store.take(1) == []
        clock.jump(600)
        assert [taken.attempt for taken in await one.store.take(1)] == [2]


async def test_one_that_was_refused_for_good_is_not_started_again(store: Stores) -> None:
    attempts = []

    async def refused(session: Session) -> None:
        attempts.append(session.attempt)
        raise AssistantRefused("room_locked", retry=False)

    async with Supervised(store(), refused) as one:
        await one.ask()
        assert (await one.reaches(FAILED)).reason == "refused: room_locked"
    assert attempts == [1]


@pytest.mark.usefixtures("at_once")
async def test_an_error_of_the_launch_itself_counts_like_the_assistants(store: Stores) -> None:
    async def launch(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        raise OSError("no more processes")

    async with Supervised(store(), launch=launch) as one:
        await one.ask()
        room = await one.reaches(FAILED)
        assert one.supervisor.free == 10
        assert "OSError" in room.reason


async def test_a_room_that_was_taken_when_there_was_no_memory_for_its_webhook_gets_its_assistant_later(
    store: Stores, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined, short = webhook("room.client.joined"), [True]

    def read(body: bytes) -> Webhook:
        if short and short.pop():
            raise MemoryError
        return decode(body)

    monkeypatch.setattr("whereby_trigger.assist.runners.decode", read)
    async with Supervised(store(), assistants.stay) as one:
        await one.store.add(arrival(joined.id, body=joined.raw))
        await one.ask(webhook=joined.id)
        room = await one.reaches(LIVE, attempt=2)
        assert assistants.sessions["visit-1"].webhook == joined
        first = (await one.store.find_runs(RunQuery(entry=room.id)))[1]
        assert (first.outcome, first.reason) == (RunOutcome.EXHAUSTED, "not launched: out of memory")


# Ends


async def test_a_request_to_stop_reaches_the_replica_that_runs_the_assistant_within_a_second(
    store: Stores, assistants: Assistants
) -> None:
    async with Supervised(store(), assistants.stay) as one, Supervised(store(), assistants.stay, max_rooms=0) as two:
        await one.ask()
        await one.reaches(LIVE)
        await two.stop()
        await eventually(lambda: assistants.there == [], within=AT_ONCE)
        room = await two.reaches(ENDED)
        assert room.reason == "stopped by hand"
        assert assistants.sessions["visit-1"].ended.reason == "stopped by hand"


async def test_one_that_is_asked_to_stop_shows_as_ending_until_it_has_left(store: Stores) -> None:
    leave = asyncio.Event()

    async def lingers(session: Session) -> None:
        await leave.wait()

    async with Supervised(store(), lingers) as one:
        await one.ask()
        await one.reaches(LIVE)
        await one.stop()
        assert (await one.reaches(ENDING)).reason == "stopped by hand"
        leave.set()
        assert (await one.reaches(ENDED)).reason == "stopped by hand"


async def test_one_that_is_asked_to_stop_while_it_starts_may_leave_by_itself(store: Stores) -> None:
    starting, start, there, leave, left = (asyncio.Event() for _ in range(5))

    async def launch(run: Run, launched: Callable[[int | None], None]) -> RunResult:
        starting.set()
        await start.wait()
        launched(None)
        there.set()
        await leave.wait()
        left.set()
        return RunResult(RunEnd.RETURNED, "it left the room")

    async with Supervised(store(), launch=launch) as one:
        await one.ask()
        await starting.wait()
        await one.stop()
        await one.reaches(ENDING)
        start.set()
        await there.wait()
        # The store works in order, so its earlier work is done before this is.
        await one.store.ping(0.0)
        await asyncio.sleep(0)
        leave.set()
        assert (await one.reaches(ENDED)).reason == "stopped by hand"
        assert left.is_set()


@pytest.mark.usefixtures("at_once")
async def test_one_that_raises_before_it_heeds_the_request_to_stop_is_not_started_again(store: Stores) -> None:
    attempts = []

    async def raises(session: Session) -> None:
        attempts.append(session.attempt)
        await one.store.stop("acme.whereby.com/visit-1", "stopped by hand")
        raise ValueError

    async with Supervised(store(), raises) as one:
        await one.ask()
        assert (await one.reaches(ENDED)).reason == "stopped by hand"
    assert attempts == [1]


async def test_a_success_while_the_assistant_is_ending_starts_the_next_when_it_has_left(store: Stores) -> None:
    there: list[int] = []
    ids: list[int] = []
    leave = asyncio.Event()

    async def lingers(session: Session) -> None:
        there.append(len(ids))
        ids.append(len(there))
        assert len(there) == 1
        await leave.wait()
        there.clear()

    async with Supervised(store(), lingers) as one:
        await one.ask()
        await one.reaches(LIVE)
        await one.stop()
        await one.ask()
        await one.reaches(ENDING)
        assert len(ids) == 1
        leave.set()
        await eventually(lambda: len(ids) == 2)
        await one.reaches(ENDED)
