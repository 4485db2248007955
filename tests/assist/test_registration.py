"""Registering an assistant: what is wrong is told at once, with the right form."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from whereby_trigger import Trigger
from whereby_trigger.assist import Session
from whereby_trigger.errors import RegistrationError


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


def test_a_sync_function_is_refused_with_the_right_form() -> None:
    with pytest.raises(RegistrationError, match=r"async def sync\(session: Session\)"):
        Trigger().assistant(sync)  # type: ignore[type-var]


@pytest.mark.parametrize("function", [takes_nothing, takes_two])
def test_a_wrong_signature_is_refused_with_the_right_form(function: Callable[..., Any]) -> None:
    with pytest.raises(RegistrationError, match=rf"async def {function.__name__}\(session: Session\)"):
        Trigger().assistant(function)


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


@pytest.mark.parametrize("argv", ["node assistant.mjs", [], ["node", 1], ["a\0b"], None], ids=repr)
def test_a_command_that_is_no_list_of_texts_is_refused_with_the_right_form(argv: Any) -> None:
    with pytest.raises(RegistrationError, match=r'\["node", "assistant\.mjs"\]'):
        Trigger().assistant_command(argv)
