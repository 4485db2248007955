"""Listeners hear how a replica's assistants end, after the store has it, and delay nobody."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.place import Place
from tests.support.stores import KINDS
from tests.support.supervised import Assistants, Supervised
from tests.support.until import eventually
from whereby_trigger import (
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
    ASSISTANT_EVENT_STARTED,
    AssistantEvent,
    RegistrationError,
    Session,
    Trigger,
)
from whereby_trigger.assist.runners import HANDED_OVER
from whereby_trigger.decide import Announcer, Emitter, UserCode
from whereby_trigger.decide.emitter import MOST_WAITING
from whereby_trigger.replica import Replica
from whereby_trigger.store import RoomMove, RoomState, State
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

WAITING, LIVE, ENDED, FAILED = RoomState.WAITING, RoomState.LIVE, RoomState.ENDED, RoomState.FAILED
URL = "https://acme.whereby.com/visit-1"


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


@pytest.fixture
def assistants() -> Assistants:
    return Assistants()


@pytest.fixture
def told() -> list[AssistantEvent]:
    return []


def event(state: RoomState, reason: str = "", attempt: int = 1, webhook_id: str | None = None) -> AssistantEvent:
    return AssistantEvent(URL, state, reason, attempt, webhook_id)


# What is reported


async def test_one_that_leaves_is_told_as_started_and_as_ended(
    place: Place, assistants: Assistants, told: list[AssistantEvent]
) -> None:
    async with Supervised(place.replica(), assistants.stay, announce=told.append) as one:
        await one.ask(webhook="w1")
        await eventually(lambda: told == [event(LIVE, webhook_id="w1")])
        assert (await one.reaches(LIVE)).attempt == 1
        assistants.let_go("visit-1")
        await eventually(lambda: told[1:] == [event(ENDED, "it left the room", webhook_id="w1")])


async def test_nothing_is_told_before_the_store_has_it(
    place: Place, assistants: Assistants, told: list[AssistantEvent]
) -> None:
    store = place.replica()
    asked, gate = asyncio.Event(), asyncio.Event()
    move = store.move

    async def at_the_gate(change: RoomMove) -> bool:
        asked.set()
        await gate.wait()
        return await move(change)

    store.move = at_the_gate  # type: ignore[assignment, method-assign]
    async with Supervised(store, assistants.stay, announce=told.append) as one:
        await one.ask()
        await asked.wait()
        await eventually(lambda: assistants.there)
        assert told == []
        gate.set()
        await eventually(lambda: told == [event(LIVE)])


async def test_one_that_fails_is_told_as_started_each_time_and_as_failed_once(
    place: Place, told: list[AssistantEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", (0.0, 0.0))

    async def raises(session: Session) -> None:
        raise ValueError("what went wrong")

    async with Supervised(place.replica(), raises, announce=told.append) as one:
        await one.ask()
        await one.reaches(FAILED)
        await eventually(lambda: len(told) == 4)
    assert told == [
        event(LIVE),
        event(LIVE, "raised ValueError: restart 1 of 2", 2),
        event(LIVE, "raised ValueError: restart 2 of 2", 3),
        event(FAILED, "raised ValueError, after 2 restarts", 3),
    ]


async def test_one_that_is_stopped_is_told_as_ended_with_the_reason(
    place: Place, assistants: Assistants, told: list[AssistantEvent]
) -> None:
    async with Supervised(place.replica(), assistants.stay, announce=told.append) as one:
        await one.ask()
        await one.reaches(LIVE)
        await one.stop()
        await eventually(lambda: told == [event(LIVE), event(ENDED, "stopped by hand")])


async def test_one_that_was_to_be_started_again_when_it_was_stopped_is_told_as_ended(
    place: Place, told: list[AssistantEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.BACKOFF", (60.0,))

    async def raises(session: Session) -> None:
        raise ValueError

    async with Supervised(place.replica(), raises, announce=told.append) as one:
        await one.ask()
        await one.reaches(WAITING, attempt=1)
        await eventually(lambda: one.supervisor._resting)
        assert told == [event(LIVE)]
        await one.stop()
        await eventually(lambda: told == [event(LIVE), event(ENDED, "stopped by hand")])
        assert not one.supervisor._resting


async def test_one_that_is_handed_over_is_told_as_started_by_the_replica_that_has_it_then(
    place: Place, assistants: Assistants, told: list[AssistantEvent]
) -> None:
    old: list[AssistantEvent] = []
    async with (
        Supervised(place.replica(), assistants.stay, announce=old.append) as one,
        Supervised(place.replica(), assistants.stay, max_rooms=0, announce=told.append) as two,
    ):
        await one.ask()
        await one.reaches(LIVE)
        two.supervisor.slots = 1
        await one.supervisor.hand_over("the replica is draining")
        await eventually(lambda: told == [event(LIVE, HANDED_OVER, 2)])
        await two.stop()
        await eventually(lambda: told[1:] == [event(ENDED, "stopped by hand", 2)])
        one.supervisor.wake()
        await eventually(lambda: not one.supervisor._resting)
        assert old == [event(LIVE)]


class CountingStore(SqliteStore):
    queries = 0

    def _read(self, work: Any) -> Any:
        self.queries += 1
        return super()._read(work)


async def test_all_that_are_to_be_started_again_are_looked_at_in_one_query(
    tmp_path: Path, told: list[AssistantEvent]
) -> None:
    """With a query for each, starts and stops waited each second for 1,000 round trips if so many had failed."""

    async def fails(session: Session) -> None:
        raise ValueError

    store = CountingStore(f"sqlite:///{tmp_path}/rooms.db")
    async with Supervised(store, fails, announce=told.append, max_rooms=30) as one:
        for number in range(20):
            await one.ask(f"visit-{number}", webhook=f"webhook {number}")
        await one.ask("by-hand", webhook=None)
        await eventually(lambda: len(one.supervisor._resting) == 21)
        one.supervisor._look_at_resting = 0.0
        before = store.queries
        await one.supervisor._announce_unstarted()
        assert store.queries - before == 2


# Who is called


def serving(tmp_path: Path, assistants: Assistants, **settings: Any) -> Trigger:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/rooms.db", port=0, **settings)
    trigger.assistant(assistants.stay)
    return trigger


async def test_listeners_hear_in_order_whether_sync_or_async_and_once_only_once(
    tmp_path: Path, assistants: Assistants
) -> None:
    trigger = serving(tmp_path, assistants)
    heard: list[tuple[str, Any]] = []

    @trigger.on(ASSISTANT_EVENT_STARTED)
    async def async_one(event: AssistantEvent) -> None:
        heard.append(("async", event))

    @trigger.once(ASSISTANT_EVENT_STARTED)
    def once() -> None:
        heard.append(("once", None))

    trigger.on(ASSISTANT_EVENT_ENDED, lambda event: heard.append(("sync", event)))
    async with trigger:
        await trigger.start_assistant(URL)
        await eventually(lambda: heard == [("async", event(LIVE)), ("once", None)])
        await trigger.stop_assistant(URL)
        await eventually(lambda: heard[2:] == [("sync", event(ENDED, "stopped by the program"))])
        await trigger.start_assistant(URL)
        await eventually(lambda: heard[3:] == [("async", event(LIVE))])
        assistants.let_go("visit-1")


async def test_a_listener_that_raises_is_named_in_the_log_and_hinders_nothing(
    tmp_path: Path, assistants: Assistants, caplog: pytest.LogCaptureFixture
) -> None:
    trigger = serving(tmp_path, assistants)
    heard: list[AssistantEvent] = []

    @trigger.on(ASSISTANT_EVENT_STARTED)
    def careless(event: AssistantEvent) -> None:
        raise SystemExit("Robin Canary")

    @trigger.on(ASSISTANT_EVENT_STARTED)
    async def hopeless(event: AssistantEvent) -> None:
        raise KeyError("Robin Canary")

    trigger.on(ASSISTANT_EVENT_STARTED, heard.append)
    with caplog.at_level(logging.WARNING):
        async with trigger:
            await trigger.start_assistant(URL)
            await eventually(lambda: heard == [event(LIVE)])
            await eventually(lambda: len([line for line in caplog.messages if "listener" in line]) == 2)
            assistants.let_go("visit-1")
    assert f"listener careless raised SystemExit (assistant_event_started of {URL})" in caplog.messages
    assert f"listener hopeless raised KeyError (assistant_event_started of {URL})" in caplog.messages
    assert "Robin" not in caplog.text
    told = [vars(record) for record in caplog.records if record.getMessage().startswith("listener")]
    assert {fields["room"] for fields in told} == {"acme.whereby.com/visit-1"}


async def test_a_listener_that_does_not_return_delays_no_assistant(tmp_path: Path, assistants: Assistants) -> None:
    trigger = serving(tmp_path, assistants, predicate_timeout=60)
    called, gate = threading.Event(), threading.Event()

    @trigger.on(ASSISTANT_EVENT_STARTED)
    def blocks() -> None:
        called.set()
        gate.wait()

    async with trigger:
        try:
            await trigger.start_assistant(URL)
            await eventually(called.is_set)
            for n in (2, 3):
                await trigger.start_assistant(f"https://acme.whereby.com/visit-{n}")
            await eventually(lambda: len(assistants.there) == 3)
            await trigger.stop_assistant(URL)
            await eventually(lambda: len(assistants.there) == 2)

            async def has_ended() -> bool:
                return [room.state for room in await trigger.list_assistants() if room.url == URL] == [ENDED]

            await eventually(has_ended)
        finally:
            gate.set()
            for n in (2, 3):
                assistants.let_go(f"visit-{n}")


async def test_a_drain_waits_until_listeners_have_heard_of_the_last_assistant(
    tmp_path: Path, assistants: Assistants, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = serving(tmp_path, assistants)
    heard: list[AssistantEvent] = []
    heard_in_time: list[AssistantEvent] = []
    drain = Replica.drain

    async def noted(replica: Replica, *arguments: Any, **keywords: Any) -> None:
        await drain(replica, *arguments, **keywords)
        heard_in_time.extend(heard)

    monkeypatch.setattr(Replica, "drain", noted)

    @trigger.on(ASSISTANT_EVENT_ENDED)
    async def slow(event: AssistantEvent) -> None:
        for _ in range(300):
            await asyncio.to_thread(lambda: None)
        heard.append(event)

    async with trigger:
        await trigger.start_assistant(URL)
        await eventually(lambda: assistants.there)
        # The assistant leaves once the drain waits for it.
        draining = asyncio.create_task(_when(lambda: trigger._lifecycle.phase == "draining", assistants))
    await draining
    assert heard_in_time == [event(ENDED, "it left the room")]


async def _when(drains: Callable[[], bool], assistants: Assistants) -> None:
    await eventually(drains)
    assistants.let_go("visit-1")


async def test_events_that_wait_for_listeners_are_bounded_and_the_log_says_what_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emitter, heard = Emitter(), list[AssistantEvent]()
    emitter.on(ASSISTANT_EVENT_STARTED, heard.append)
    user_code = UserCode(60)
    announcer = Announcer(emitter, user_code, 50)
    try:
        with caplog.at_level(logging.WARNING):
            for n in range(MOST_WAITING + 2):
                announcer.announce(event(LIVE, attempt=n))
        assert len(caplog.messages) == 2
        assert URL in caplog.messages[0]
        telling = asyncio.create_task(announcer.run())
        await announcer.drain(60)
        assert [each.attempt for each in heard] == list(range(MOST_WAITING))
        telling.cancel()
        await asyncio.wait({telling})
    finally:
        user_code.close()


async def test_all_rooms_may_get_another_assistant_at_once_without_an_event_being_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    emitter, heard = Emitter(), list[AssistantEvent]()
    emitter.on(ASSISTANT_EVENT_STARTED, heard.append)
    user_code, rooms = UserCode(60), MOST_WAITING
    announcer = Announcer(emitter, user_code, rooms)
    try:
        for n in range(2 * rooms):
            announcer.announce(event(LIVE, attempt=n))
        telling = asyncio.create_task(announcer.run())
        await announcer.drain(60)
        assert len(heard) == 2 * rooms
        assert caplog.messages == []
        telling.cancel()
        await asyncio.wait({telling})
    finally:
        user_code.close()


async def test_a_webhook_of_a_type_with_the_name_of_an_event_does_not_cause_it() -> None:
    trigger = Trigger()
    heard: list[Any] = []
    trigger.on(ASSISTANT_EVENT_FAILED, heard.append)
    body = b'{"id": "w1", "type": "assistant_event_failed", "data": {"roomName": "/visit-1", "subdomain": "acme"}}'
    async with trigger.testing() as t:
        assert (await t.deliver(body)).state is State.UNHANDLED
    assert heard == []


def test_a_misspelt_event_is_refused_with_the_right_one() -> None:
    with pytest.raises(RegistrationError, match="did you mean 'assistant_event_started'"):
        Trigger().on("assistant_event_startet", lambda: None)
