"""Predicates are registered by dict or by decorator, and what cannot work is refused at its registration."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from whereby_trigger import RegistrationError, Trigger
from whereby_trigger.webhook import ROOM_TYPES, WEBHOOK_TYPES

HERE = "test_registration.py:"


def first(webhook: Any) -> bool:
    return True


def second() -> bool:
    return True


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, webhook: Any) -> bool:
        self.calls += 1
        return True


def test_a_decorated_predicate_comes_back_unchanged() -> None:
    trigger = Trigger()
    assert trigger.when("room.client.joined")(first) is first
    assert trigger.on("room.client.left")(first) is first
    assert trigger.once("room.client.left")(second) is second
    assert trigger.on("room.client.left", first) is first


def test_one_decorator_registers_a_predicate_for_several_types() -> None:
    trigger = Trigger()
    trigger.when("room.client.joined", "room.client.left")(first)
    assert trigger.predicates.names() == {"room.client.joined": "first", "room.client.left": "first"}


@pytest.mark.parametrize("type", ROOM_TYPES)
def test_every_type_that_names_a_room_takes_a_predicate(type: str) -> None:
    assert Trigger(webhook_triggers={type: first}).predicates.types() == [type]  # type: ignore[misc]


@pytest.mark.parametrize("type", sorted(set(WEBHOOK_TYPES) - set(ROOM_TYPES)))
def test_a_type_without_a_room_points_to_on(type: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Trigger().when(type)(first)  # type: ignore[call-overload]
    assert f"@trigger.on({type!r})" in str(refused.value)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("room.client.join", "room.client.joined"),
        ("room.client.knockcancelled", "room.client.knockCancelled"),
        ("room.session.start", "room.session.started"),
        ("assistant.request", "assistant.requested"),
    ],
)
def test_a_misspelt_type_is_refused_with_the_one_that_was_meant(typo: str, meant: str) -> None:
    with pytest.raises(RegistrationError, match="did you mean") as refused:
        Trigger(webhook_triggers={typo: first})  # type: ignore[misc]
    assert repr(meant) in str(refused.value)


@pytest.mark.parametrize("nonsense", ["", "x", "zzzzzzzzzzzz"])
def test_a_type_that_is_like_no_other_is_refused_with_the_list_of_them(nonsense: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Trigger().when(nonsense)(first)  # type: ignore[call-overload]
    assert all(type in str(refused.value) for type in ROOM_TYPES)


def test_a_second_predicate_for_a_type_is_refused_with_both_places() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": first})
    with pytest.raises(RegistrationError) as refused:
        trigger.when("room.client.joined")(second)
    message = str(refused.value)
    assert f"first at {HERE}{first.__code__.co_firstlineno}" in message
    assert f"second at {HERE}{second.__code__.co_firstlineno}" in message


def test_a_callable_object_is_placed_by_its_call_and_a_partial_by_its_function() -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": Counting()})
    with pytest.raises(RegistrationError) as refused:
        trigger.when("room.client.joined")(functools.partial(first, webhook=None))
    message = str(refused.value)
    assert f"Counting at {HERE}{Counting.__call__.__code__.co_firstlineno}" in message
    assert f"first at {HERE}{first.__code__.co_firstlineno}" in message


def test_when_without_a_type_is_refused_with_the_right_form() -> None:
    trigger = Trigger()
    with pytest.raises(RegistrationError, match=r"@trigger\.when\(.room\.client\.joined.\)"):
        trigger.when(first)  # type: ignore[call-overload]
    with pytest.raises(RegistrationError, match=r"@trigger\.when\(.room\.client\.joined.\)"):
        trigger.when()  # type: ignore[call-overload]


def test_on_without_a_name_is_refused_with_the_right_form() -> None:
    with pytest.raises(RegistrationError, match=r"@trigger\.on\(NAME\)"):
        Trigger().on(first)(second)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda webhook, presence, room: True,
        lambda *, room: True,
        lambda webhook, *, room: True,
        functools.partial(lambda a, b, c, d: True, 1),
    ],
)
def test_a_predicate_with_a_wrong_signature_is_refused_with_the_right_form(wrong: Callable[..., bool]) -> None:
    with pytest.raises(RegistrationError) as refused:
        Trigger(webhook_triggers={"room.client.joined": wrong})
    message = str(refused.value)
    assert "`def predicate(webhook, presence)`, `def predicate(webhook)` or `def predicate()`" in message
    assert HERE in message


def test_a_listener_with_a_wrong_signature_is_refused_with_the_right_form() -> None:
    def listener(success: Any, room: Any) -> None: ...

    with pytest.raises(RegistrationError) as refused:
        Trigger().on("trigger_event_success", listener)  # type: ignore[arg-type]
    assert "`def listener(payload)` or `def listener()`" in str(refused.value)


@pytest.mark.parametrize("thing", [True, None, "first", 1])
def test_what_is_no_function_is_refused(thing: Any) -> None:
    with pytest.raises(RegistrationError, match="must be a function"):
        Trigger(webhook_triggers={"room.client.joined": thing})
    with pytest.raises(RegistrationError, match="must be a function"):
        Trigger().on("room.client.joined")(thing)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("trigger_event_sucess", "trigger_event_success"),
        ("TRIGGER_EVENT_SUCCESS", "trigger_event_success"),
        ("transcription.finish", "transcription.finished"),
        ("room.client.Joined", "room.client.joined"),
        ("room.client.join", "room.client.joined"),
        ("rooms.session.started", "room.session.started"),
        ("room.client.knockcancelled", "room.client.knockCancelled"),
    ],
)
def test_a_misspelt_event_is_refused_with_the_one_that_was_meant(typo: str, meant: str) -> None:
    with pytest.raises(RegistrationError, match="did you mean") as refused:
        Trigger().on(typo, first)
    assert repr(meant) in str(refused.value)


@pytest.mark.parametrize(
    "new",
    ["room.client.kicked", "room.client.renamed", "room.session.paused", "recording.failed", "transcription.deleted"],
)
def test_a_type_that_whereby_may_add_one_day_can_be_listened_to(new: str) -> None:
    trigger = Trigger()
    trigger.on(new, first)
    assert trigger.listeners(new) == [first]


def test_a_name_of_ones_own_is_an_event() -> None:
    trigger = Trigger()
    trigger.on("bill.paid", first)
    assert trigger.listeners("bill.paid") == [first]


class Room:
    def two(self, webhook: Any, presence: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("predicate", "takes"),
    [
        (lambda: True, 0),
        (lambda webhook: True, 1),
        (lambda webhook, name="bound": True, 1),
        (lambda *arguments: True, 1),
        (lambda webhook, *more: True, 1),
        (functools.partial(lambda webhook, presence: True, presence=None), 1),
        (functools.partial(lambda name, webhook: True, "bound"), 1),
        (lambda webhook, presence: True, 2),
        (lambda webhook, room: True, 2),
        (lambda webhook, presence=None: True, 2),
        (lambda webhook, presence, name="bound": True, 2),
        (functools.partial(lambda name, webhook, presence: True, "bound"), 2),
        (Room().two, 2),
    ],
)
def test_a_predicate_gets_who_is_there_if_it_needs_a_second_argument_or_names_it(
    predicate: Callable[..., bool], takes: int
) -> None:
    trigger = Trigger(webhook_triggers={"room.client.joined": predicate})
    registered = trigger.predicates.by_type.get("room.client.joined")
    assert registered is not None
    assert registered.takes == takes
    assert trigger.predicates.use_presence == (takes == 2)
