"""One run of a coroutine assistant: however it ends, it ends with a reason in words, and affects nothing else."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from tests.support.until import eventually
from whereby_trigger.assist import CoroutineAssistant, Session
from whereby_trigger.assist.runners import RunEnd, RunResult, run_coroutine
from whereby_trigger.clock import Clock
from whereby_trigger.errors import AssistantRefused
from whereby_trigger.webhook import room_from_url

pytestmark = pytest.mark.anyio

LONG = 60.0


@pytest.fixture
def session() -> Session:
    return Session(room_from_url("https://acme.whereby.com/visit-1"), None, 1)


async def run(function: Callable[[Session], Awaitable[None]], session: Session, grace: float = LONG) -> RunResult:
    return await asyncio.wait_for(run_coroutine(CoroutineAssistant(function), session, grace), 10)  # type: ignore[arg-type]


async def test_one_that_returns_has_left_the_room(session: Session) -> None:
    async def leaves(session: Session) -> None:
        await asyncio.sleep(0)

    assert await run(leaves, session) == RunResult(RunEnd.RETURNED, "it left the room")


async def test_one_that_raises_is_recorded_in_full(session: Session) -> None:
    async def raises(session: Session) -> None:
        raise ValueError("the names are secret")

    end = await run(raises, session)
    assert (end.how, end.reason, end.retry) == (RunEnd.RAISED, "raised ValueError", True)
    assert "the names are secret" in end.errors[0]
    assert "test_run.py" in end.errors[0]


@pytest.mark.parametrize("retry", [False, True])
async def test_one_that_was_refused_says_whether_another_try_makes_sense(session: Session, retry: bool) -> None:
    async def is_refused(session: Session) -> None:
        raise AssistantRefused("room_empty", retry=retry)

    assert await run(is_refused, session) == RunResult(RunEnd.REFUSED, "refused: room_empty", retry)


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()], ids=lambda error: repr(error))
async def test_what_would_end_the_program_is_a_failure_like_any_other(session: Session, error: BaseException) -> None:
    async def exits(session: Session) -> None:
        raise error

    assert (await run(exits, session)).reason == f"raised {type(error).__name__}"


async def test_one_that_awaits_what_was_cancelled_has_raised_and_is_not_called_late(session: Session) -> None:
    async def awaits_what_was_cancelled(session: Session) -> None:
        listening = asyncio.create_task(asyncio.Event().wait())
        listening.cancel()
        await listening

    end = await run(awaits_what_was_cancelled, session)
    assert (end.how, end.reason, end.exception) == (RunEnd.RAISED, "raised CancelledError", "CancelledError")
    assert "await listening" in end.errors[0]


async def test_one_whose_session_ends_may_leave_by_itself(session: Session) -> None:
    async def waits(session: Session) -> None:
        await session.ended
        await asyncio.sleep(0)

    running = asyncio.create_task(run(waits, session))
    await asyncio.sleep(0)
    session.ended.set("over")
    assert (await running).how is RunEnd.RETURNED


async def test_one_that_does_not_leave_in_its_grace_is_cancelled(session: Session) -> None:
    cleaned = []

    async def stays(session: Session) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    session.ended.set("over")
    end = await run(stays, session, grace=0.01)
    assert (end.how, end.reason) == (RunEnd.CUT_OFF, "cancelled: it had not returned in time")
    assert cleaned == [True]


async def test_one_that_takes_no_notice_of_its_cancellation_is_waited_for(session: Session) -> None:
    cancelled, released = asyncio.Event(), asyncio.Event()

    async def clings(session: Session) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                cancelled.set()

    session.ended.set("over")
    running = asyncio.create_task(run(clings, session, grace=0))
    await asyncio.wait_for(cancelled.wait(), 5)
    await asyncio.sleep(0)
    assert not running.done()
    released.set()
    assert (await running).how is RunEnd.RETURNED


@pytest.mark.parametrize("cut_off", [False, True], ids=["its session has ended", "it is cut off"])
async def test_one_that_takes_no_notice_of_its_cancellation_is_named_in_a_warning(
    session: Session, cut_off: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.assist.runners.TO_UNWIND", 0.01, raising=False)
    entered, released = asyncio.Event(), asyncio.Event()

    async def clings(session: Session) -> None:
        while not released.is_set():
            entered.set()
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    running = asyncio.create_task(run_coroutine(CoroutineAssistant(clings), session, 0))
    await asyncio.wait_for(entered.wait(), 5)
    if cut_off:
        running.cancel()
    else:
        session.ended.set("over")
    try:
        await eventually(lambda: caplog.messages, 5)
    finally:
        released.set()
        await asyncio.wait({running})
    (message,) = caplog.messages
    assert "clings" in message
    assert "acme.whereby.com/visit-1" in message


async def test_one_that_unwinds_when_it_is_cancelled_is_warned_of_by_nobody(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    async def stays(session: Session) -> None:
        await asyncio.Event().wait()

    session.ended.set("over")
    assert (await run(stays, session, grace=0)).how is RunEnd.CUT_OFF
    assert caplog.messages == []


async def test_a_run_that_is_cut_off_ends_its_assistant_first(session: Session) -> None:
    left, entered = asyncio.Event(), asyncio.Event()

    async def stays(session: Session) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            left.set()

    running = asyncio.create_task(run_coroutine(CoroutineAssistant(stays), session, LONG))
    await asyncio.wait_for(entered.wait(), 5)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert left.is_set()


async def test_a_run_leaves_no_task_behind(session: Session) -> None:
    async def leaves(session: Session) -> None:
        return

    before = asyncio.all_tasks()
    await run(leaves, session)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


class NoMemory(Clock):
    """Fail to wait for a time."""

    async def until(self, event: asyncio.Event, at: float) -> None:
        raise MemoryError


async def test_one_whose_run_fails_is_gone_before_its_room_gets_another(session: Session) -> None:
    there = asyncio.Event()

    async def stays(session: Session) -> None:
        there.set()
        try:
            await asyncio.Event().wait()
        finally:
            there.clear()

    running = asyncio.create_task(run_coroutine(CoroutineAssistant(stays), session, LONG, NoMemory()))
    await there.wait()
    session.ended.set("stopped by hand")
    with pytest.raises(MemoryError):
        await running
    assert not there.is_set()
