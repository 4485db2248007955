"""Any exception of user code is a recorded failure, and ends neither the process nor its room."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.until import eventually
from whereby_trigger import Trigger
from whereby_trigger.decide import Decider
from whereby_trigger.decide.predicates import MAX_LENGTH, brief_error, full_error, storable_error
from whereby_trigger.store import Decision, State
from whereby_trigger.testing import sign, webhook
from whereby_trigger.testing.in_process import SECRET

pytestmark = pytest.mark.anyio


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class MuteRuntimeError(RuntimeError):
    def __str__(self) -> str:
        raise SystemExit(3)


class NotAText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


def recurse() -> bool:
    return recurse()


def raising(error: BaseException) -> Callable[[], bool]:
    def predicate() -> bool:
        raise error

    return predicate


def asynchronous(function: Callable[[], bool]) -> Callable[[], Any]:
    async def predicate() -> bool:
        return function()

    return predicate


ODD: dict[str, Callable[[], bool]] = {
    "SystemExit": raising(SystemExit(0)),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "CancelledError": raising(asyncio.CancelledError()),
    "GeneratorExit": raising(GeneratorExit()),
    "StopIteration": raising(StopIteration()),
    "StopAsyncIteration": raising(StopAsyncIteration()),
    "BaseException": raising(BaseException()),
    "RecursionError": recurse,
    "MemoryError": raising(MemoryError()),
    "ExceptionGroup": raising(ExceptionGroup("several", [ValueError("one"), KeyError("two")])),
    "an exception without a text": raising(Mute()),
    "an exception whose text exits": raising(MuteRuntimeError()),
    "an exception whose text is none": raising(NotAText()),
    "a lone surrogate": raising(ValueError("\ud800 here")),
    "a NUL": raising(ValueError("nul \0 here")),
    "a text of 1 MB": raising(ValueError("long " * 200_000)),
}


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.decide.predicates.BACKOFF", (0.0, 0.0))


async def decisions_with(trigger: Trigger) -> tuple[Decision, Decision, tuple[str, ...]]:
    """Decide two webhooks of one room; return the decisions, and the first one's errors in the store."""
    async with trigger.testing() as t:
        first = await t.deliver(webhook("room.client.joined"))
        second = await t.deliver(webhook("room.client.left"))
        return first, second, (await t.stored())[-1].errors


@pytest.mark.parametrize("way", [lambda function: function, asynchronous], ids=["sync", "async"])
@pytest.mark.parametrize("odd", ODD)
async def test_whatever_a_predicate_raises_is_a_failure_and_its_room_goes_on(
    odd: str, way: Callable[[Any], Any]
) -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": way(ODD[odd]), "room.client.left": lambda: True})
    failed, after, errors = await decisions_with(trigger)
    assert failed.state is State.FAILED
    assert failed.reason.endswith("3 times")
    assert len(errors) == 1
    assert len(errors[0]) <= MAX_LENGTH
    assert after.state is State.FIRED


async def test_a_predicate_that_cancels_its_own_task_and_returns_is_a_failure_and_its_room_goes_on() -> None:
    async def cancels_itself() -> bool:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return True

    trigger = Trigger(webhook_triggers={"room.client.joined": cancels_itself, "room.client.left": lambda: True})
    async with asyncio.timeout(10):
        failed, after, errors = await decisions_with(trigger)
    assert (failed.state, after.state) == (State.FAILED, State.FIRED)
    assert failed.reason == "predicate cancels_itself was cancelled, 3 times"
    assert len(errors) == 1


@pytest.mark.parametrize("odd", ODD)
async def test_whatever_a_sync_listener_raises_is_recorded_and_the_next_is_called(odd: str) -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True, "room.client.left": lambda: True})
    heard: list[str] = []
    trigger.on("trigger_event_success", ODD[odd])
    trigger.on("trigger_event_success", lambda success: heard.append(success.trigger_webhook.type))
    fired, after, errors = await decisions_with(trigger)
    assert (fired.state, after.state) == (State.FIRED, State.FIRED)
    assert len(errors) == 1
    assert heard == ["room.client.joined", "room.client.left"]


@pytest.mark.parametrize("odd", ODD)
async def test_whatever_an_async_listener_raises_is_recorded_and_the_next_is_called(odd: str) -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True, "room.client.left": lambda: True})
    heard: list[str] = []
    trigger.on("trigger_event_success", asynchronous(ODD[odd]))
    trigger.on("trigger_event_success", lambda success: heard.append(success.trigger_webhook.type))
    fired, after, errors = await decisions_with(trigger)
    assert (fired.state, after.state) == (State.FIRED, State.FIRED)
    assert len(errors) == 1
    assert heard == ["room.client.joined", "room.client.left"]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_reason_holds_an_exceptions_type_but_nothing_of_its_text() -> None:
    error = raised(ValueError("Robin Example has no appointment"))
    assert brief_error(error) == "raised ValueError"
    assert "Robin" in full_error(error)
    assert "test_odd_exceptions.py:" in full_error(error)


def test_a_long_text_still_leaves_the_place_where_it_was_raised() -> None:
    stored = storable_error(full_error(raised(ValueError("x" * 1_000_000))))
    assert "test_odd_exceptions.py:" in stored
    assert len(stored) == MAX_LENGTH
    assert stored.endswith("…")


@pytest.mark.parametrize(("text", "fit"), [("a\0b", "a\N{REPLACEMENT CHARACTER}b"), ("a\ud800b", "a?b"), ("añ", "añ")])
def test_a_stored_text_holds_nothing_that_a_store_refuses(text: str, fit: str) -> None:
    assert storable_error(text) == fit


async def test_an_error_of_the_trigger_itself_fails_that_webhook_and_its_room_goes_on() -> None:
    class Nameless(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise RuntimeError("a class without a name")

    class Odd(Exception, metaclass=Nameless):
        pass

    trigger = Trigger(webhook_triggers={"room.client.joined": raising(Odd()), "room.client.left": lambda: True})
    failed, after, errors = await decisions_with(trigger)
    assert (failed.state, failed.reason) == (State.FAILED, "an error of the trigger itself, RuntimeError")
    assert "a class without a name" in errors[0]
    assert after.state is State.FIRED


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
async def test_an_error_that_ends_the_task_of_a_room_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise ZeroDivisionError

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context.get("exception")))
    monkeypatch.setattr(Decider, "decide", fails)
    async with Trigger(webhook_triggers={"room.client.joined": lambda: True}).testing() as t:
        body = webhook("room.client.joined").raw
        assert await t.post(body, sign(SECRET, body, int(t.now()))) == 200
        await eventually(lambda: bool(told))
    assert [type(error) for error in told] == [ZeroDivisionError]
