"""Registering an assistant: a mistake raises immediately, and the error shows the right form."""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from math import inf, nan
from typing import Any

import pytest

from whereby_trigger import Trigger
from whereby_trigger.assist import Session
from whereby_trigger.errors import RegistrationError
from whereby_trigger.store import Bounds


async def scribe(session: Session) -> None: ...


def sync(session: Session) -> None: ...


async def takes_nothing() -> None: ...


async def takes_two(session: Session, other: int) -> None: ...


class Scribe:
    async def __call__(self, session: Session) -> None: ...


def test_a_function_is_returned_unchanged() -> None:
    assert Trigger().assistant(scribe) is scribe
    assert Trigger().assistant()(scribe) is scribe
    assert Trigger().assistant(bots=True)(scribe) is scribe


@pytest.mark.parametrize(
    "function", [scribe, Scribe(), partial(takes_two, other=1)], ids=["plain", "object", "partial"]
)
def test_what_is_called_with_a_session_and_awaited_can_be_an_assistant(function: Callable[..., Any]) -> None:
    Trigger().assistant(function)


def test_one_that_is_a_partial_is_named_by_its_function() -> None:
    trigger = Trigger()
    trigger.assistant(partial(takes_two, other=1))
    with pytest.raises(RegistrationError, match="already has takes_two"):
        trigger.assistant(scribe)


def test_a_sync_function_is_refused_with_the_right_form() -> None:
    with pytest.raises(RegistrationError, match=r"async def sync\(session: Session\)"):
        Trigger().assistant(sync)  # type: ignore[type-var]


@pytest.mark.parametrize("function", [takes_nothing, takes_two])
def test_a_wrong_signature_is_refused_with_the_right_form(function: Callable[..., Any]) -> None:
    with pytest.raises(RegistrationError, match=rf"async def {function.__name__}\(session: Session\)"):
        Trigger().assistant(function)


def test_an_assistant_leaves_an_empty_room_after_a_minute_and_any_room_after_12_hours() -> None:
    by_name, by_call, command = Trigger(), Trigger(), Trigger()
    by_name.assistant(scribe)
    by_call.assistant()(scribe)
    command.assistant_command(["node", "assistant.mjs"])
    for trigger in (by_name, by_call, command):
        assert trigger.registered_assistant is not None
        assert trigger.registered_assistant.bounds == Bounds(60.0, 12 * 3600.0)


def test_both_forms_take_bounds_as_seconds_or_a_timedelta_and_none_lifts_one() -> None:
    coroutine, command = Trigger(), Trigger()
    coroutine.assistant(leave_when_empty=timedelta(minutes=5), max_duration=None)(scribe)
    command.assistant_command(["node", "assistant.mjs"], leave_when_empty=None, max_duration=90)
    assert coroutine.registered_assistant is not None
    assert coroutine.registered_assistant.bounds == Bounds(300.0, None)
    assert command.registered_assistant is not None
    assert command.registered_assistant.bounds == Bounds(None, 90.0)


@pytest.mark.parametrize("name", ["leave_when_empty", "max_duration"])
@pytest.mark.parametrize(
    "value",
    [0, -1, 0.0, nan, inf, True, False, "60", timedelta(0), timedelta(-1), pytest.param(10**400, id="huge"), [60]],
    ids=repr,
)
def test_a_bound_that_is_no_duration_is_refused_with_the_right_form(name: str, value: Any) -> None:
    expected = rf"^{name} must be seconds as a number or a timedelta, more than 0, not .*: write {name}=60, or "
    trigger = Trigger()
    with pytest.raises(RegistrationError, match=expected):
        trigger.assistant(**{name: value})
    with pytest.raises(RegistrationError, match=expected):
        trigger.assistant_command(["node", "assistant.mjs"], **{name: value})
    assert trigger.registered_assistant is None


def test_a_second_assistant_is_refused_with_the_name_of_the_first() -> None:
    trigger = Trigger()
    trigger.assistant(scribe)
    with pytest.raises(RegistrationError, match="already has scribe"):
        trigger.assistant(scribe)
    with pytest.raises(RegistrationError, match="already has scribe"):
        trigger.assistant_command(["node", "assistant.mjs"])


def test_a_command_and_a_function_exclude_each_other() -> None:
    trigger = Trigger()
    trigger.assistant_command(["node", "assistant.mjs"])
    with pytest.raises(RegistrationError, match=r"already has node assistant\.mjs"):
        trigger.assistant(scribe)


@pytest.mark.anyio
async def test_an_assistant_that_comes_once_the_trigger_runs_is_refused_and_taken_before_the_next_run() -> None:
    trigger = Trigger()
    async with trigger.testing():
        with pytest.raises(RegistrationError, match="the trigger is already running"):
            trigger.assistant(scribe)
        with pytest.raises(RegistrationError, match="the trigger is already running"):
            trigger.assistant_command(["node", "assistant.mjs"])
        assert trigger.registered_assistant is None
    assert trigger.assistant(scribe) is scribe


@pytest.mark.parametrize(
    "env", [{"PORT": 8080}, {1: "a"}, {"PORT": None}, {"A": "b\0c"}, {"A=B": "c"}, ["PORT=8080"], "PORT"], ids=repr
)
def test_an_environment_that_no_process_can_have_is_refused_with_the_right_form(env: Any) -> None:
    trigger = Trigger()
    with pytest.raises(RegistrationError, match=r'write env=\{"PORT": "8080"\}'):
        trigger.assistant_command(["node", "assistant.mjs"], env=env)
    trigger.assistant_command(["node", "assistant.mjs"], env={**os.environ, "PORT": "8080"})


@pytest.mark.parametrize("argv", ["node assistant.mjs", [], ["node", 1], ["a\0b"], None], ids=repr)
def test_a_command_that_is_no_list_of_texts_is_refused_with_the_right_form(argv: Any) -> None:
    with pytest.raises(RegistrationError, match=r'\["node", "assistant\.mjs"\]'):
        Trigger().assistant_command(argv)
