"""What `advance` and `settle` do: time that a test does not wait for, and what came due is done when they return."""

import asyncio
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from whereby_trigger import (
    ASSISTANT_EVENT_FAILED,
    TRIGGER_EVENT_SUCCESS,
    AssistantEvent,
    Presence,
    RoomClientJoined,
    Session,
    Trigger,
)
from whereby_trigger.store import RoomState
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import TestingTrigger, in_process, sign, webhook

pytestmark = pytest.mark.anyio

JOINED = "room.client.joined"
HOUR = 3600.0


def of_two(**settings: float) -> Trigger:
    trigger = Trigger(**settings)  # type: ignore[arg-type]

    @trigger.when("room.client.joined", hold=30)
    def two_people(webhook: RoomClientJoined, presence: Presence) -> bool:
        return presence.humans is not None and presence.humans >= 2

    return trigger


class Attending:
    """An assistant that leaves when it should, and records why."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.joined: list[str | None] = []

    async def __call__(self, session: Session) -> None:
        self.joined.append(None if session.webhook is None else session.webhook.id)
        self.left.append(await session.ended)


async def states(trigger: Trigger) -> list[tuple[RoomState, str]]:
    return [(room.state, room.reason) for room in await trigger.list_assistants()]


async def test_a_hold_is_over_when_its_seconds_have_been_advanced_and_not_before() -> None:
    trigger = of_two()
    trigger.assistant(Attending())
    began = time.monotonic()
    async with trigger.testing() as t:
        meeting = t.meeting("/visit-1")
        assert (await meeting.join("host")).state == "skipped"
        assert (await meeting.join("visitor")).state == "held"
        await t.advance(25)
        assert t.assistants == []
        await t.advance(5)
        (start,) = t.assistants
        assert start.reason == "predicate two_people returned True for 30 s"
        assert (await t.stored())[0].state == "fired"
    assert time.monotonic() - began < 25


async def test_a_hold_that_is_no_longer_true_is_over_at_once_and_says_after_how_long() -> None:
    trigger = of_two()
    async with trigger.testing() as t:
        meeting = t.meeting()
        await meeting.join("host")
        await meeting.join("visitor")
        await t.advance(12)
        await meeting.leave("visitor")
        await t.settle()
        held = next(record for record in await t.stored() if "after" in record.reason)
        assert held.state == "skipped"
        # The clock of the machine continues meanwhile.
        assert re.fullmatch(r"predicate two_people returned False, no longer true after 1[2-9] s", held.reason)


async def test_what_comes_due_on_the_way_is_done_at_its_time() -> None:
    """A single jump of two hours would find the hold due longer than max_age ago."""
    trigger = of_two(max_age=60, drain_timeout=10)
    async with trigger.testing() as t:
        meeting = t.meeting()
        await meeting.join("host")
        held = await meeting.join("visitor")
        await t.advance(2 * HOUR)
        record = next(record for record in await t.stored() if record.id == held.id)
        assert record.state == "fired"
        assert record.decided_at is not None
        assert 29 < record.decided_at - record.received_at < 40


async def test_a_predicate_that_raised_is_asked_again_after_each_pause_and_then_fails() -> None:
    trigger, asked, first = Trigger(), list[float](), asyncio.Event()

    @trigger.when("room.client.joined")
    async def raises(webhook: RoomClientJoined) -> bool:
        asked.append(t.now())
        first.set()
        raise RuntimeError

    async with trigger.testing() as t:
        delivering = asyncio.create_task(t.deliver(webhook(JOINED)))
        await first.wait()
        await t.advance(0.6)
        assert len(asked) == 2
        await t.advance(10)
        decision = await delivering
    assert decision.reason == "predicate raises raised RuntimeError, 3 times"
    assert [round(later - asked[0]) for later in asked] in ([0, 0, 2], [0, 1, 3], [0, 1, 2], [0, 0, 3])


async def test_a_predicate_that_is_asked_again_after_an_advance_finds_who_is_in_the_room_then() -> None:
    trigger, seen, first = Trigger(), list[int | None](), asyncio.Event()

    @trigger.when("room.client.joined")
    async def raises_at_first(webhook: RoomClientJoined, presence: Presence) -> bool:
        seen.append(presence.humans)
        first.set()
        if len(seen) == 1:
            raise RuntimeError
        return False

    async with trigger.testing() as t:
        # A webhook that comes as the trigger starts may be read back with the backlog.
        await t.deliver(webhook("room.session.started", room="/elsewhere"))
        await t.settle()
        meeting = t.meeting()
        delivering = asyncio.create_task(meeting.join("host"))
        await first.wait()
        left = webhook("room.client.left", num_clients=0, num_clients_by_role_name={}).raw
        assert await t.post(left, sign(in_process.SECRET, left, int(t.now()))) == 200
        await t.advance(0.6)
        await delivering
    assert seen == [1, 0]


async def test_an_assistant_that_fails_is_started_again_after_each_pause_until_it_has_failed() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
    attempts: list[float] = []
    failed: list[AssistantEvent] = []
    trigger.on(ASSISTANT_EVENT_FAILED, failed.append)

    @trigger.assistant
    async def fails(session: Session) -> None:
        attempts.append(t.now())
        raise ValueError

    began = time.monotonic()
    async with trigger.testing(assistants="run") as t:
        await t.deliver(webhook(JOINED))
        await t.settle()
        assert len(attempts) == 1
        await t.advance(4)
        assert len(attempts) == 2
        await t.advance(60)
        assert await states(trigger) == [(RoomState.FAILED, "raised ValueError, after 3 restarts")]
    assert [event.reason for event in failed] == ["raised ValueError, after 3 restarts"]
    pauses = [later - before for before, later in pairwise(attempts)]
    assert [pause >= least for pause, least in zip(pauses, (1, 5, 15), strict=True)] == [True] * 3
    assert time.monotonic() - began < 20


async def test_an_assistant_leaves_a_room_that_is_empty_for_long_enough() -> None:
    trigger, attending = Trigger(webhook_triggers={"room.client.joined": lambda: True}), Attending()
    trigger.assistant(leave_when_empty=60)(attending)
    async with trigger.testing(assistants="run") as t:
        meeting = t.meeting()
        await meeting.join("host")
        await t.advance(HOUR)
        assert attending.left == []
        await meeting.leave()
        await t.advance(55)
        assert attending.left == []
        await t.advance(HOUR)
        assert attending.left == ["nobody was in the room for 60 s"]
        (run,) = await trigger.list_runs()
        assert run.ended_at is not None
        assert HOUR + 60 <= run.ended_at - run.started_at < HOUR + 70


async def test_an_assistant_leaves_after_max_duration_and_the_next_meeting_gets_one_12_hours_later() -> None:
    """The lease is not lost on the way."""
    trigger, attending = Trigger(webhook_triggers={"room.client.joined": lambda: True}), Attending()
    trigger.assistant(max_duration=12 * HOUR)(attending)
    async with trigger.testing(assistants="run") as t:
        await t.meeting("/visit-1").join("host")
        await t.advance(12 * HOUR - 60)
        assert attending.left == []
        await t.advance(60)
        assert attending.left == ["an assistant for 12 h: max_duration"]
        assert (await t.meeting("/visit-2").join("host")).state == "fired"
        await t.settle()
        assert len(attending.joined) == 2
        assert len(t.assistants) == 2


async def test_a_room_that_has_waited_for_longer_than_max_age_gets_no_assistant() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True}, max_age=600, max_rooms=1, drain_timeout=10)
    trigger.assistant(Attending())
    async with trigger.testing(assistants="run") as t:
        await t.meeting("/visit-1").join("host")
        await t.settle()
        waits = await t.meeting("/visit-2").join("host")
        assert waits.reason.endswith("no free slot: the room waits")
        await t.advance(590)
        assert (await states(trigger))[0][0] is RoomState.WAITING
        await t.advance(20)
        assert (await states(trigger))[0] == (RoomState.ENDED, "waited longer than max_age")


async def test_an_assistant_that_heeds_nothing_is_cancelled_when_its_grace_was_advanced() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True}, stop_grace=300)
    story: list[str] = []

    @trigger.assistant
    async def stays(session: Session) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            story.append("cancelled")

    async with trigger.testing(assistants="run") as t:
        meeting = t.meeting()
        await meeting.join("host")
        await t.settle()
        await meeting.end()
        await t.advance(290)
        assert story == []
        await t.advance(20)
        assert story == ["cancelled"]


async def test_all_times_of_a_test_move_together() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
    trigger.assistant(Attending())
    async with trigger.testing() as t:
        before = time.time()
        await t.advance(HOUR)
        assert t.now() - before >= HOUR
        meeting = t.meeting()
        decision = await meeting.join("host")
        (record,) = await t.stored()
        assert min(record.received_at, decision.decided_at) - before >= HOUR
        created_at = t.assistants[0].trigger_webhook.created_at
        assert created_at is not None
        assert created_at > datetime.fromtimestamp(before + HOUR - 1, UTC)
        old = webhook(JOINED).raw
        assert await t.post(old, sign(in_process.SECRET, old, int(before))) == 401
        await trigger.start_assistant("https://acme.whereby.com/by-hand")
        assert (await trigger.list_assistants())[0].queued_at - before >= HOUR


async def test_what_is_older_than_the_retention_is_forgotten() -> None:
    async with Trigger(retention=86400).testing() as t:
        await t.deliver(webhook(JOINED))
        await t.advance(20 * HOUR)
        assert len(await t.stored()) == 1
        await t.advance(10 * HOUR)
        assert await t.stored() == []


async def test_advance_waits_for_the_retention_that_the_start_has_begun_to_apply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, let_go, wipe = asyncio.Event(), asyncio.Event(), SqliteStore.wipe

    async def waits_first(store: SqliteStore, *, rewrite: bool | None) -> str:
        begun.set()
        await let_go.wait()
        return await wipe(store, rewrite=rewrite)

    monkeypatch.setattr(SqliteStore, "wipe", waits_first)
    async with Trigger(retention=86400).testing() as t:
        await t.deliver(webhook(JOINED))
        await begun.wait()
        advancing = asyncio.create_task(t.advance(30 * HOUR))
        done, _ = await asyncio.wait({advancing}, timeout=0.2)
        assert not done
        let_go.set()
        await advancing
        assert await t.stored() == []


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e9])
async def test_a_time_that_no_clock_can_be_put_forward_by_is_refused(seconds: float) -> None:
    async with Trigger().testing() as t:
        with pytest.raises(ValueError, match="from 0 to three years"):
            await t.advance(seconds)


async def test_settle_waits_for_async_listeners_and_for_what_they_raise() -> None:
    trigger, let_go = Trigger(), asyncio.Event()

    @trigger.on("room.client.joined")
    async def raises() -> None:
        await let_go.wait()
        raise ValueError("a listener's own")

    async with trigger.testing() as t:
        await t.deliver(webhook(JOINED))
        settling = asyncio.create_task(t.settle())
        await t.advance(1)
        assert not settling.done()
        let_go.set()
        await settling
        (record,) = await t.stored()
        assert "a listener's own" in record.errors[0]


async def test_what_does_not_settle_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "SETTLE_WITHIN", 0.1)
    trigger = Trigger()

    @trigger.on("room.client.joined")
    async def stays() -> None:
        await asyncio.Event().wait()

    async with trigger.testing() as t:
        await t.deliver(webhook(JOINED))
        with pytest.raises(TimeoutError, match=r"not settled after 0\.1 s: async listeners run"):
            await t.settle()


async def test_settle_waits_for_an_assistant_that_starts_and_for_one_that_leaves() -> None:
    trigger, attending = Trigger(webhook_triggers={"room.client.joined": lambda: True}), Attending()
    trigger.assistant(attending)
    async with trigger.testing(assistants="run") as t:
        meeting = t.meeting()
        await meeting.join("host")
        await t.settle()
        assert await states(trigger) == [(RoomState.LIVE, "")]
        await meeting.end()
        await t.settle()
        assert attending.left == ["the session has ended"]
        assert await states(trigger) == [(RoomState.ENDED, "the session has ended")]


async def test_the_assistant_of_a_meeting_that_had_to_wait_for_the_one_before_is_listed_once_it_starts() -> None:
    trigger, attending = Trigger(webhook_triggers={"room.client.joined": lambda: True}), Attending()
    trigger.assistant(attending)
    async with trigger.testing(assistants="run") as t:
        first = t.meeting("/visit-1")
        await first.join("host")
        await t.settle()
        await t.advance(60)
        await t.meeting("/visit-1").join("host")
        await t.settle()
        assert attending.left == ["another session has started"]
        assert [start.trigger_webhook.id for start in t.assistants] == attending.joined
        assert {start.reason.partition(" ")[0] for start in t.assistants} == {"predicate"}
        await first.end()
        await t.settle()
        assert len(attending.left) == 1


@pytest.mark.parametrize("kind", [AssertionError, TimeoutError])
async def test_a_failed_test_shows_what_happened_in_each_room(kind: type[Exception]) -> None:
    trigger = of_two()

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    def listens() -> None:
        raise ValueError("the listener's")

    trigger.assistant(Attending())

    async def fails(t: TestingTrigger) -> None:
        meeting = t.meeting("/visit-1")
        await meeting.join("host")
        await meeting.join("visitor")
        await t.advance(31)
        await t.deliver(webhook("assistant.requested", room="/visit-2"))
        raise kind

    with pytest.raises(kind) as failed:
        async with trigger.testing() as t:
            await fails(t)
    (note,) = failed.value.__notes__
    assert "by the clock of the test, which shows 31." in note
    for line in (
        "in acme.whereby.com/visit-1",
        "skipped: predicate two_people returned False",
        "(visitor: 2 humans, 0 bots)",
        "fired: predicate two_people returned True for 30 s; an assistant starts",
        "listener listens: ValueError",
        "now: 2 humans, 0 bots",
        "assistant: predicate two_people returned True for 30 s",
        "assistant waiting",
        "in acme.whereby.com/visit-2",
        "unhandled: no predicate and no listener for assistant.requested",
    ):
        assert line in note, note


async def test_another_error_than_that_of_an_assertion_is_left_as_it_is() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError):
        async with Trigger().testing():
            raise error
    assert not hasattr(error, "__notes__")


async def test_the_timeline_of_one_room_shows_no_other_room() -> None:
    async with Trigger().testing() as t:
        assert (await t.timeline()).endswith("nothing was delivered")
        for room in ("/visit-1", "/visit-2"):
            await t.deliver(webhook(JOINED, room=room))
        for room in ("/visit-1", "https://acme.whereby.com/visit-1"):
            shown = await t.timeline(room)
            assert "/visit-1" in shown
            assert "/visit-2" not in shown


def test_with_an_eager_task_factory_nothing_of_a_trigger_runs_on_after_its_end() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("tasks begin at once from Python 3.12 on")

    async def left_over() -> set[asyncio.Task[object]]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        before = asyncio.all_tasks()
        async with of_two().testing() as t:
            assert (await t.meeting().join("host")).state == "skipped"
            await t.settle()
        return asyncio.all_tasks() - before

    assert asyncio.run(left_over()) == set()


def test_it_works_in_several_threads_at_once() -> None:
    fired: list[int] = []

    async def visit() -> None:
        trigger = of_two()
        trigger.assistant(Attending())
        async with trigger.testing() as t:
            meeting = t.meeting()
            await meeting.join("host")
            await meeting.join("visitor")
            await t.advance(30)
            fired.append(len(t.assistants))

    threads = [threading.Thread(target=lambda: asyncio.run(visit())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert fired == [1, 1, 1, 1]


@pytest.mark.parametrize("wait", [TestingTrigger.settle, lambda t: t.advance(0)], ids=["settle", "advance"])
async def test_what_a_test_began_itself_gets_its_turn_even_if_nothing_goes_on(
    wait: Callable[[TestingTrigger], Awaitable[None]],
) -> None:
    async def begin() -> None:
        begun.append(True)

    begun: list[bool] = []
    async with Trigger().testing() as t:
        await t.settle()
        begins = asyncio.create_task(begin())
        # Else a test that waits in a loop for something of its own would never end.
        await wait(t)
        assert begun
        await begins
