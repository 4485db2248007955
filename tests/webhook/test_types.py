"""What a webhook looks like to the code that gets one."""

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any, get_args

import pytest
from rich.console import Console
from rich.pretty import Pretty

from whereby_trigger.testing import webhook
from whereby_trigger.webhook import (
    BOT_ROLES,
    ROOM_TYPES,
    WEBHOOK_CLASSES,
    WEBHOOK_TYPES,
    AssistantRequested,
    RoleName,
    RoomClientJoined,
    RoomClientLeft,
    RoomData,
    UnknownWebhook,
    is_human,
)

WAVED = UnknownWebhook(id="a1", type="room.client.waved", data={"displayName": "Robin"})  # type: ignore[arg-type]


def test_there_are_eleven_types_and_eleven_roles() -> None:
    assert len(WEBHOOK_TYPES) == len(set(WEBHOOK_TYPES)) == 11
    assert len(get_args(RoleName)) == len(set(get_args(RoleName))) == 11
    assert set(get_args(RoleName)) > BOT_ROLES
    assert set(WEBHOOK_CLASSES) == set(WEBHOOK_TYPES)


def test_seven_types_name_a_room() -> None:
    named = [type for type in WEBHOOK_TYPES if type.startswith(("room.", "assistant."))]
    assert list(ROOM_TYPES) == named
    assert len(named) == 7


def test_a_webhook_is_immutable() -> None:
    joined = webhook("room.client.joined")
    with pytest.raises(AttributeError):
        joined.id = "another"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        joined.data.room_name = "/another"  # type: ignore[misc]


def test_a_webhook_can_be_built_by_hand_with_keywords() -> None:
    requested = AssistantRequested(id="a1", data=RoomData(room_name="/r", subdomain="acme"))
    assert (requested.type, requested.created_at, requested.raw) == ("assistant.requested", None, b"")


def test_webhooks_can_be_kept_in_a_set() -> None:
    one, another = webhook("room.client.joined"), webhook("room.client.left")
    assert {one, another, one, WAVED} == {one, another, WAVED}


def pretty(value: object) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(Pretty(value))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("show", [repr, str, "{}".format, pretty])
def test_no_way_to_print_a_webhook_shows_a_person(show: Callable[[object], str]) -> None:
    joined = webhook(
        "room.client.joined", id="a1", display_name="Robin", metadata="bed 4", external_id="E-77", room="/r"
    )
    for shown in (show(joined), show([joined]), show(joined.data), show(WAVED)):
        assert not any(secret in shown for secret in ("Robin", "bed 4", "E-77"))
    assert show(joined).strip() == "RoomClientJoined(id='a1', room_name='/r')"
    assert show(WAVED).strip() == "UnknownWebhook(id='a1', type='room.client.waved')"


COUNTS: dict[str, tuple[dict[str, Any], int | None]] = {
    "people of several roles": ({"host": 1, "visitor": 2, "granted_viewer": 1}, 4),
    "people and bots": ({"host": 1, "recorder": 1, "streamer": 1, "captioner": 1, "assistant": 2}, 1),
    "bots only": ({"assistant": 1}, 0),
    "a role not listed yet is a person": ({"observer": 2}, 2),
}


@pytest.mark.parametrize(("by_role", "humans"), COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("cls", [RoomClientJoined, RoomClientLeft])
def test_humans_are_counted_without_the_bots(
    cls: type[RoomClientJoined | RoomClientLeft], by_role: Mapping[str, int], humans: int | None
) -> None:
    data = cls(id="a1").data.__class__(num_clients=9, num_clients_by_role_name=by_role)
    assert cls(id="a1", data=data).data.humans == humans


@pytest.mark.parametrize(("total", "humans"), [(None, None), (3, None), (0, 0)])
def test_without_counts_by_role_only_an_empty_room_has_a_known_number_of_humans(
    total: int | None, humans: int | None
) -> None:
    assert webhook("room.client.left", num_clients=total, num_clients_by_role_name={}).data.humans == humans
    assert webhook("room.client.left", num_clients=total, num_clients_by_role_name=None).data.humans == humans


@pytest.mark.parametrize("role", get_args(RoleName))
@pytest.mark.parametrize("type", ["room.client.joined", "room.client.left"])
def test_a_bot_is_told_from_a_person_by_its_role(type: str, role: str) -> None:
    assert is_human(webhook(type, role_name=role)) is (role not in BOT_ROLES)


def test_a_role_that_is_left_out_or_new_is_a_person_s() -> None:
    assert is_human(webhook("room.client.joined", role_name=""))
    assert is_human(webhook("room.client.joined", role_name="observer"))


@pytest.mark.parametrize(
    "type", [type for type in WEBHOOK_TYPES if type not in ("room.client.joined", "room.client.left")]
)
def test_a_webhook_without_a_role_is_not_a_bot_s(type: str) -> None:
    assert is_human(webhook(type))


@pytest.mark.parametrize(("role", "human"), [("assistant", False), ("host", True), (["assistant"], True), (None, True)])
def test_an_unknown_type_may_carry_a_bot_s_role_too(role: object, human: bool) -> None:
    waved = UnknownWebhook(id="a1", type="room.client.waved", data={"roleName": role})  # type: ignore[arg-type]
    assert is_human(waved) is human
