"""A predicate's result counts only if it is a bool; it is asked three times if it raises or is too slow."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from whereby_trigger.decide import Predicates, UserCode
from whereby_trigger.decide.predicates import Verdict, ask
from whereby_trigger.store import UNKNOWN, Presence
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined")


@pytest.fixture
async def user_code() -> AsyncIterator[UserCode]:
    user_code = UserCode(limit=0.05)
    yield user_code
    await user_code.drain(0)
    user_code.close()


async def not_read() -> Presence:
    raise AssertionError("a predicate that takes one argument, or none, costs no read")


class Pauses(list[float]):
    """Skip pauses, and record how long they would have been."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


async def verdict_on(
    function: Callable[..., Any],
    user_code: UserCode,
    pause: Pauses | None = None,
    find_presence: Callable[[], Awaitable[Presence]] = not_read,
) -> Verdict:
    predicate = Predicates({JOINED.type: function}).by_type.get(JOINED.type)
    assert predicate is not None
    return await ask(predicate, JOINED, find_presence, user_code, Pauses() if pause is None else pause)


def two_people(webhook: Any, presence: Any) -> bool:
    return bool(presence.humans >= 2)


def forgetful(webhook: Any, presence: Any) -> Any:
    return presence.humans and presence.humans >= 2


def waited_for(webhook: Any, presence: Any) -> bool:
    return bool(presence.humans_since.timestamp() > 0)


def mistaken(webhook: Any, presence: Any) -> bool:
    return bool("1" + 1)  # type: ignore[operator]


NO_COUNT = "presence.humans is None, because no count says who is in this room now"
ADVICE = f": {NO_COUNT}; write `presence.humans is not None and …`"


@pytest.mark.parametrize(
    ("predicate", "presence", "reason"),
    [
        (two_people, UNKNOWN, f"predicate two_people raised TypeError, 3 times{ADVICE}"),
        (waited_for, UNKNOWN, f"predicate waited_for raised AttributeError, 3 times{ADVICE}"),
        (forgetful, UNKNOWN, f"predicate forgetful returned None{ADVICE}"),
        (mistaken, UNKNOWN, "predicate mistaken raised TypeError, 3 times"),
        (two_people, Presence(2, 0), "predicate two_people returned True"),
        (two_people, Presence(1, 0), "predicate two_people returned False"),
    ],
)
async def test_a_predicate_that_takes_who_is_there_for_known_is_told_that_it_is_not(
    user_code: UserCode, predicate: Any, presence: Presence, reason: str
) -> None:
    async def find() -> Presence:
        return presence

    assert (await verdict_on(predicate, user_code, find_presence=find)).reason == reason


async def test_who_is_there_is_read_for_each_asking(user_code: UserCode) -> None:
    found = iter([UNKNOWN, Presence(1, 0), Presence(2, 0)])

    def in_the_end(webhook: Any, presence: Presence) -> bool:
        if presence.humans != 2:
            raise ValueError
        return True

    async def find() -> Presence:
        return next(found)

    assert (await verdict_on(in_the_end, user_code, find_presence=find)).answer is True


def in_both_ways(result: Any) -> list[Callable[[], Any]]:
    def predicate() -> Any:
        return result

    async def predicate_async() -> Any:
        return result

    predicate_async.__name__ = "predicate"
    return [predicate, predicate_async]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "predicate predicate returned None: is a `return` missing?"),
        (1, "predicate predicate returned a value of type int, not True or False"),
        (0, "predicate predicate returned a value of type int, not True or False"),
        ("yes", "predicate predicate returned a value of type str, not True or False"),
        ([], "predicate predicate returned a value of type list, not True or False"),
        (object(), "predicate predicate returned a value of type object, not True or False"),
    ],
)
async def test_what_is_no_bool_fails_at_once_with_the_predicates_name(
    result: object, reason: str, user_code: UserCode
) -> None:
    for predicate in in_both_ways(result):
        assert await verdict_on(predicate, user_code) == Verdict(None, reason, asked=1)


async def test_a_value_that_raises_when_looked_at_is_no_bool(user_code: UserCode) -> None:
    class Proxy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("working outside of a context")

        @__class__.setter
        def __class__(self, value: Any) -> None: ...

    for predicate in in_both_ways(Proxy()):
        verdict = await verdict_on(predicate, user_code)
        assert verdict.reason == "predicate predicate returned a value of type Proxy, not True or False"


@pytest.mark.parametrize("answer", [True, False])
async def test_a_bool_is_the_answer(answer: bool, user_code: UserCode) -> None:
    for predicate in in_both_ways(answer):
        assert await verdict_on(predicate, user_code) == Verdict(answer, f"predicate predicate returned {answer}", 1)


async def test_what_raises_is_asked_three_times_with_growing_pauses(user_code: UserCode) -> None:
    calls: list[int] = []

    def predicate() -> bool:
        calls.append(1)
        raise LookupError("no such patient")

    async def predicate_async() -> bool:
        return predicate()

    for function in (predicate, predicate_async):
        calls.clear()
        pauses = Pauses()
        verdict = await verdict_on(function, user_code, pauses)
        assert (verdict.answer, verdict.asked, len(calls), pauses) == (None, 3, 3, [0.5, 2.0])
        assert verdict.reason == f"predicate {function.__name__} raised LookupError, 3 times"
        assert verdict.error is not None
        assert "no such patient" in verdict.error
        assert "test_verdict.py:" in verdict.error


async def test_an_answer_at_the_last_try_counts(user_code: UserCode) -> None:
    calls: list[int] = []

    def predicate() -> bool:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return True

    verdict = await verdict_on(predicate, user_code)
    assert (verdict.answer, verdict.asked) == (True, 3)


async def never() -> bool:
    await asyncio.Event().wait()
    return True


def never_later() -> Awaitable[bool]:
    return never()


@pytest.mark.parametrize("predicate", [never, never_later])
async def test_an_async_predicate_that_is_too_slow_is_asked_three_times(
    predicate: Callable[[], Any], user_code: UserCode
) -> None:
    pauses = Pauses()
    verdict = await verdict_on(predicate, user_code, pauses)
    assert (verdict.answer, verdict.asked, pauses) == (None, 3, [0.5, 2.0])
    assert verdict.reason == f"predicate {predicate.__name__} took longer than 0.05 s, 3 times"


async def test_a_sync_predicate_that_is_too_slow_is_asked_once(user_code: UserCode) -> None:
    let_go = threading.Event()

    def hang() -> bool:
        return let_go.wait()

    verdict = await verdict_on(hang, user_code)
    let_go.set()
    assert (verdict.answer, verdict.asked) == (None, 1)
    assert verdict.reason == "predicate hang took longer than 0.05 s, once"


async def test_an_answer_after_the_limit_does_not_count(user_code: UserCode) -> None:
    async def stubborn() -> bool:
        try:
            return await never()
        except asyncio.CancelledError:
            return True

    assert (await verdict_on(stubborn, user_code)).answer is None


async def test_a_predicate_that_ignores_its_cancellation_is_left_behind(
    user_code: UserCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.user_code.WIND_DOWN", 0.01)
    ended = asyncio.Event()

    async def immortal() -> bool:
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue
        return True

    verdict = await asyncio.wait_for(verdict_on(immortal, user_code), 30)
    assert (verdict.answer, verdict.asked) == (None, 3)
    ended.set()


async def test_a_predicate_is_asked_again_only_when_it_has_tidied_up(user_code: UserCode) -> None:
    story: list[str] = []

    async def tidy() -> bool:
        story.append("asked")
        try:
            return await never()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            story.append("tidied up")

    await verdict_on(tidy, user_code)
    assert story == ["asked", "tidied up"] * 3


async def test_a_timeout_of_the_predicates_own_is_what_it_raised(user_code: UserCode) -> None:
    async def impatient() -> bool:
        async with asyncio.timeout(0):
            return await never()

    assert (await verdict_on(impatient, user_code)).reason == "predicate impatient raised TimeoutError, 3 times"


async def test_a_predicate_that_cancels_its_own_task_has_failed(user_code: UserCode) -> None:
    async def suicidal() -> bool:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await never()

    assert (await verdict_on(suicidal, user_code)).reason == "predicate suicidal was cancelled, 3 times"


@pytest.mark.parametrize("unfit", [asyncio.get_running_loop, asyncio.get_event_loop])
async def test_sync_code_that_needs_the_loop_is_told_to_be_async(unfit: Callable[[], Any], user_code: UserCode) -> None:
    verdict = await verdict_on(unfit, user_code)
    assert "make it `async def`" in verdict.reason
