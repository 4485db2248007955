"""What a block of `trigger.testing()` is: when it may be used, who may wait in it, and what it leaves behind."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from tests.support.until import AT_ONCE
from whereby_trigger import ASSISTANT_EVENT_ENDED, Hold, Session, Trigger, is_human
from whereby_trigger.errors import LifecycleError, UsageError
from whereby_trigger.testing import TestingTrigger, in_process, webhook

pytestmark = pytest.mark.anyio

JOINED = "room.client.joined"


def holding() -> Trigger:
    return Trigger(webhook_triggers={"room.client.joined": Hold(lambda: True, 30)})


async def test_who_gives_up_waiting_for_a_decision_may_wait_again() -> None:
    async with holding().testing() as t:
        held = webhook(JOINED)
        await t.deliver(held)
        waits = asyncio.create_task(t.decided(held))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await t.decided(held)
        again = asyncio.create_task(t.decided(held))
        await t.advance(30)
        assert [(await one).state for one in (waits, again)] == ["fired", "fired"]


USES: dict[str, Callable[[TestingTrigger], Awaitable[object]]] = {
    "deliver": lambda t: t.deliver(webhook(JOINED)),
    "decided": lambda t: t.decided(webhook(JOINED)),
    "post": lambda t: t.post(b"{}"),
    "advance": lambda t: t.advance(1),
    "settle": lambda t: t.settle(),
    "stored": lambda t: t.stored(),
    "timeline": lambda t: t.timeline(),
    "meeting": lambda t: t.meeting().join("host"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_what_is_called_before_or_after_the_block_says_so_at_once(
    use: Callable[[TestingTrigger], Awaitable[object]],
) -> None:
    testing = Trigger().testing()
    async with asyncio.timeout(AT_ONCE):
        with pytest.raises(UsageError, match="call this inside"):
            await use(testing)
        async with testing:
            pass
        with pytest.raises(UsageError, match="call this inside"):
            await use(testing)


async def test_a_block_within_its_own_block_is_refused_and_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    testing = Trigger().testing()
    async with testing as t:
        with pytest.raises(LifecycleError, match="each block"):
            async with testing:
                pass
        assert (await t.deliver(webhook(JOINED))).state == "unhandled"
    assert asyncio.all_tasks() == before


async def test_no_thread_of_a_block_lives_on_after_it() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": is_human})
    for _ in range(20):
        async with trigger.testing() as t:
            await t.deliver(webhook(JOINED))
        assert not [thread for thread in threading.enumerate() if thread.name == "whereby-trigger-user-code"]


URL = "https://acme.whereby.com/visit-1"


class Attending:
    def __init__(self) -> None:
        self.here = 0

    async def __call__(self, session: Session) -> None:
        self.here += 1
        await session.ended
        self.here -= 1


async def test_settle_waits_for_assistants_that_are_started_and_stopped_by_hand() -> None:
    trigger, attending = Trigger(), Attending()
    trigger.assistant(attending)
    async with trigger.testing(assistants="run") as t:
        await t.settle()
        await trigger.start_assistant(URL)
        await t.settle()
        assert attending.here == 1
        await trigger.stop_assistant(URL)
        await t.settle()
        assert attending.here == 0


async def test_settle_waits_for_an_assistant_that_an_async_listener_starts() -> None:
    trigger, attending, let_go = Trigger(), Attending(), asyncio.Event()
    trigger.assistant(attending)

    @trigger.on("room.client.joined")
    async def starts_one() -> None:
        await let_go.wait()
        await trigger.start_assistant(URL)

    async with trigger.testing(assistants="run") as t:
        await t.settle()
        await t.deliver(webhook(JOINED))
        settling = asyncio.create_task(t.settle())
        await asyncio.sleep(0)
        let_go.set()
        await settling
        assert attending.here == 1


async def test_settle_gives_up_on_assistants_that_are_started_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "SETTLE_WITHIN", 0.1)
    trigger = Trigger()

    @trigger.assistant
    async def leaves_at_once(session: Session) -> None:
        pass

    @trigger.on(ASSISTANT_EVENT_ENDED)
    async def starts_another() -> None:
        await trigger.start_assistant(URL)

    async with trigger.testing(assistants="run") as t:
        await trigger.start_assistant(URL)
        with pytest.raises(TimeoutError, match=r"not settled after 0\.1 s"):
            await t.settle()


async def lasted(trigger: Trigger, room_url: str) -> float:
    (run,) = await trigger.list_runs(room_url)
    assert run.ended_at is not None
    return run.ended_at - run.started_at


async def test_an_assistant_that_was_started_by_hand_leaves_at_its_bound_on_the_way() -> None:
    trigger = Trigger()
    trigger.assistant(max_duration=600)(Attending())
    async with trigger.testing(assistants="run") as t:
        await t.settle()
        asked_at = t.now()
        await trigger.start_assistant(URL)
        await t.advance(1800)
        (run,) = await trigger.list_runs(URL)
        assert run.started_at - asked_at < 10
        assert 600 <= await lasted(trigger, URL) < 610


async def test_an_assistant_that_had_to_wait_for_a_slot_leaves_at_its_own_bound_on_the_way() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, max_rooms=1)
    trigger.assistant(max_duration=600)(Attending())
    async with trigger.testing(assistants="run") as t:
        for room in ("/visit-1", "/visit-2"):
            await t.meeting(room).join("host")
            await t.settle()
        await t.advance(1800)
        assert 600 <= await lasted(trigger, "https://acme.whereby.com/visit-2") < 610


@pytest.mark.parametrize("assistants", ["list", "run"])
async def test_who_comes_back_into_a_room_that_was_empty_for_long_enough_gets_another_assistant(
    assistants: str,
) -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": is_human})
    trigger.assistant(leave_when_empty=60)(Attending())
    async with trigger.testing(assistants=assistants) as t:  # type: ignore[arg-type]
        meeting = t.meeting("/visit-1")
        await meeting.join("host")
        await t.advance(3600)
        await meeting.leave()
        await t.advance(30)
        await meeting.join("host")
        assert len(t.assistants) == 1
        await meeting.leave()
        await t.advance(60)
        await meeting.join("host")
        assert len(t.assistants) == 2


def test_in_several_threads_a_start_by_hand_is_for_the_block_of_its_own_thread() -> None:
    trigger, both = Trigger(), threading.Barrier(2, timeout=20)
    trigger.assistant(Attending())
    seen: dict[str, list[str]] = {}

    async def visit(room_url: str) -> None:
        async with trigger.testing(assistants="run") as t:
            both.wait()
            await trigger.start_assistant(room_url)
            both.wait()
            await t.settle()
            seen[room_url] = [room.url for room in await trigger.list_assistants()]
            both.wait()

    rooms = [URL, "https://acme.whereby.com/visit-2"]
    threads = [threading.Thread(target=lambda room=room: asyncio.run(visit(room))) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == {room: [room] for room in rooms}


async def test_an_assertion_that_fails_in_a_group_of_tasks_shows_what_happened() -> None:
    async def one() -> None:
        raise AssertionError

    async def fails(t: TestingTrigger) -> None:
        await t.deliver(webhook(JOINED))
        async with asyncio.TaskGroup() as group:
            group.create_task(one())

    with pytest.raises(ExceptionGroup) as failed:
        async with Trigger().testing() as t:
            await fails(t)
    (note,) = failed.value.__notes__
    assert "in acme.whereby.com/visit-1" in note


async def test_the_clock_does_not_move_on_before_an_assistant_that_raises_at_once_has_failed() -> None:
    trigger = holding()
    # The clock goes there next.
    trigger.when("room.client.knocked", hold=40)(lambda webhook: True)

    @trigger.assistant
    async def fails(session: Session) -> None:
        raise ValueError

    # One block in ten was wrong.
    for _ in range(50):
        async with trigger.testing(assistants="run") as t:
            await t.meeting("/visit-1").join("host")
            await t.meeting("/visit-2").knock()
            await t.advance(60)
            first = (await trigger.list_runs(URL))[-1]
            assert first.ended_at is not None
            assert first.ended_at - first.started_at < 5
