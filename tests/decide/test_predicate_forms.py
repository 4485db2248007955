"""A predicate may be any callable, and is asked in the same way."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from whereby_trigger import RoomClientJoined, Trigger
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED: Final = "room.client.joined"


def is_visit(webhook: RoomClientJoined) -> bool:
    return webhook.data.room_name.startswith("/visit-")


async def is_visit_async(webhook: RoomClientJoined) -> bool:
    await asyncio.sleep(0)
    return is_visit(webhook)


def starts_with(prefix: str, webhook: RoomClientJoined) -> bool:
    return webhook.data.room_name.startswith(prefix)


async def starts_with_async(prefix: str, webhook: RoomClientJoined) -> bool:
    return starts_with(prefix, webhook)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


class Later:
    """An awaitable that is not a coroutine."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self.value


class Visits:
    def __call__(self, webhook: RoomClientJoined) -> bool:
        return is_visit(webhook)

    def method(self, webhook: RoomClientJoined) -> bool:
        return is_visit(webhook)

    async def method_async(self, webhook: RoomClientJoined) -> bool:
        return is_visit(webhook)

    @staticmethod
    def static(webhook: RoomClientJoined) -> bool:
        return is_visit(webhook)

    @classmethod
    async def of_class(cls, webhook: RoomClientJoined) -> bool:
        return is_visit(webhook)


class AsyncVisits:
    async def __call__(self, webhook: RoomClientJoined) -> bool:
        return is_visit(webhook)


FORMS: dict[str, Any] = {
    "function": is_visit,
    "async function": is_visit_async,
    "lambda": lambda webhook: is_visit(webhook),
    "lambda that returns a coroutine": lambda webhook: is_visit_async(webhook),
    "lambda that returns an awaitable object": lambda webhook: Later(is_visit(webhook)),
    "partial": functools.partial(starts_with, "/visit-"),
    "partial of an async function": functools.partial(starts_with_async, "/visit-"),
    "partial of a partial": functools.partial(functools.partial(starts_with, "/visit-")),
    "bound method": Visits().method,
    "bound async method": Visits().method_async,
    "static method": Visits.static,
    "async class method": Visits.of_class,
    "callable object": Visits(),
    "object with an async call": AsyncVisits(),
    "partial of an object with an async call": functools.partial(AsyncVisits()),
    "wrapped function": wrapped(is_visit),
    "wrapped async function": wrapped(is_visit_async),
    "argument with a default": lambda webhook=None: is_visit(webhook),
    "any arguments": lambda *webhooks: is_visit(*webhooks),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_predicate_of_any_form_decides(form: str) -> None:
    trigger = Trigger(webhook_triggers={JOINED: FORMS[form]})
    async with trigger.testing() as t:
        fired = await t.deliver(webhook(JOINED, room="/visit-1"))
        skipped = await t.deliver(webhook(JOINED, room="/lobby"))
    assert (fired.state, skipped.state) == (State.FIRED, State.SKIPPED)


async def no_arguments_async() -> bool:
    return True


def deferred() -> Awaitable[bool]:
    return no_arguments_async()


WITHOUT_ARGUMENT = [lambda: True, no_arguments_async, deferred, functools.partial(lambda answer: answer, True)]


@pytest.mark.parametrize("form", WITHOUT_ARGUMENT)
async def test_a_predicate_may_take_no_argument(form: Callable[[], Any]) -> None:
    async with Trigger(webhook_triggers={"assistant.requested": form}).testing() as t:
        assert (await t.deliver(webhook("assistant.requested"))).state is State.FIRED


async def test_a_class_is_called_as_what_it_is_and_its_instance_is_no_bool() -> None:
    async with Trigger(webhook_triggers={JOINED: AsyncVisits}).testing() as t:  # type: ignore[typeddict-item]
        decision = await t.deliver(webhook(JOINED))
    assert decision.state is State.FAILED
    assert decision.reason == "predicate AsyncVisits returned a value of type AsyncVisits, not True or False"


async def test_a_lambda_is_named_by_the_place_where_it_stands() -> None:
    predicate = lambda: False  # noqa: E731
    async with Trigger(webhook_triggers={JOINED: predicate}).testing() as t:
        decision = await t.deliver(webhook(JOINED))
    line = predicate.__code__.co_firstlineno
    assert decision.reason == f"predicate lambda in test_predicate_forms.py:{line} returned False"


async def test_a_predicate_is_given_the_webhook_that_was_delivered() -> None:
    seen = []

    async def look(webhook: RoomClientJoined) -> bool:
        seen.append(webhook)
        return True

    delivered = webhook(JOINED)
    async with Trigger(webhook_triggers={JOINED: look}).testing() as t:
        await t.deliver(delivered)
    assert seen == [delivered]
