"""The webhooks that tests and `send` use are what Whereby would send."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from whereby_trigger.testing import sign, webhook
from whereby_trigger.webhook import (
    BOT_ROLES,
    ROOM_TYPES,
    WEBHOOK_CLASSES,
    WEBHOOK_TYPES,
    ClientCountData,
    Webhook,
    WebhookData,
    decode,
    verify,
)


def sent(built: Webhook) -> dict[str, Any]:
    body = json.loads(built.raw)
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_a_built_webhook_is_what_its_body_decodes_to(type: str) -> None:
    built = webhook(type)
    assert built.__class__ is WEBHOOK_CLASSES[type]
    assert decode(built.raw) == built


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_the_body_is_in_whereby_s_wire_format(type: str) -> None:
    built = webhook(type)
    body = sent(built)
    assert list(body) == ["id", "apiVersion", "createdAt", "type", "data"]
    assert len(bytes.fromhex(body["id"])) == 32
    assert body["apiVersion"] == "1.0"
    assert built.created_at is not None
    assert body["createdAt"] == built.created_at.strftime("%Y-%m-%dT%H:%M:%S.") + body["createdAt"][-4:-1] + "Z"
    assert abs(datetime.now(UTC) - built.created_at) < timedelta(minutes=1)
    assert json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() == built.raw


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_the_body_has_every_field_of_its_type(type: str) -> None:
    data = webhook(type).data
    assert isinstance(data, WebhookData)
    fields = {field.encode_name for field in msgspec.structs.fields(data)}
    optional = {"recordingId"} if type == "transcription.finished" else set()
    assert fields - set(sent(webhook(type))["data"]) == optional


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_only_the_types_that_name_a_room_carry_a_subdomain(type: str) -> None:
    data = sent(webhook(type, room="/visit-7", subdomain="clinic"))["data"]
    assert data.get("subdomain") == ("clinic" if type in ROOM_TYPES else None)
    assert data["roomName"].lstrip("/") == "visit-7"


def test_two_webhooks_of_a_room_differ_in_id_and_participant_and_share_a_session() -> None:
    one, another = webhook("room.client.joined"), webhook("room.client.joined")
    assert one.id != another.id
    assert one.data.room_session_id == another.data.room_session_id
    assert one.data.participant_id != another.data.participant_id


def test_each_room_has_a_session_of_its_own() -> None:
    rooms = [{"room": "/a"}, {"room": "/b"}, {"room": "/a", "subdomain": "clinic"}]
    assert len({webhook("room.client.joined", **room).data.room_session_id for room in rooms}) == 3


def test_names_are_utf_8_and_not_escaped() -> None:
    assert "Zoë 🎥".encode() in webhook("room.client.joined", display_name="Zoë 🎥").raw


def test_id_and_time_can_be_given() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 89_999, tzinfo=timezone(timedelta(hours=2)))
    built = webhook("room.session.ended", id="a1", created_at=moment)
    assert built.id == "a1"
    assert sent(built)["createdAt"] == "2026-03-04T03:06:07.089Z"


def test_a_field_goes_by_its_python_name_or_its_wire_name() -> None:
    for fields in ({"display_name": "Zoë"}, {"displayName": "Zoë"}):
        built = webhook("room.client.knocked", **fields)
        assert built.data.display_name == "Zoë"


def test_a_field_may_be_null() -> None:
    assert webhook("room.session.started", room_session_id=None).data.room_session_id is None


def test_the_kind_of_a_transcription_is_a_field_of_its_own() -> None:
    live = webhook("transcription.finished")
    recording = webhook("transcription.finished", type="RECORDING_TRANSCRIPTION")
    by_data = webhook("transcription.finished", data={"type": "RECORDING_TRANSCRIPTION"})
    assert (live.data.type, live.data.recording_id) == ("LIVE_TRANSCRIPTION", None)
    assert recording.data.type == "RECORDING_TRANSCRIPTION"
    assert recording.data.recording_id
    assert by_data.data.recording_id


def test_new_fields_and_overrides_go_into_data() -> None:
    built = webhook("room.client.joined", display_name="Zoë", data={"mood": "calm", "displayName": "Kim"})
    assert sent(built)["data"]["mood"] == "calm"
    assert built.data.display_name == "Kim"


COUNTS: dict[str, tuple[str, dict[str, Any], int, dict[str, int], int]] = {
    "a visitor joined": ("joined", {}, 2, {"visitor": 1, "host": 1}, 2),
    "a second host joined": ("joined", {"role_name": "host"}, 2, {"host": 2}, 2),
    "an assistant joined": ("joined", {"role_name": "assistant"}, 2, {"assistant": 1, "host": 1}, 1),
    "the first one joined": ("joined", {"num_clients": 1}, 1, {"visitor": 1}, 1),
    "a fifth one joined": ("joined", {"num_clients": 5}, 5, {"visitor": 1, "host": 4}, 5),
    "a visitor left": ("left", {}, 1, {"host": 1}, 1),
    "the last one left": ("left", {"num_clients": 0}, 0, {}, 0),
    "none is left": ("left", {"num_clients_by_role_name": {}}, 0, {}, 0),
    "an assistant joined, by data": ("joined", {"data": {"roleName": "assistant"}}, 2, {"assistant": 1, "host": 1}, 1),
    "a fifth one joined, by data": ("joined", {"data": {"numClients": 5}}, 5, {"visitor": 1, "host": 4}, 5),
    "data comes before fields": ("joined", {"num_clients": 9, "data": {"numClients": 1}}, 1, {"visitor": 1}, 1),
    "counts given": ("left", {"numClientsByRoleName": {"host": 2, "assistant": 1}}, 3, {"host": 2, "assistant": 1}, 2),
}


@pytest.mark.parametrize(("event", "fields", "total", "by_role", "humans"), COUNTS.values(), ids=COUNTS)
def test_the_counts_go_with_each_other(
    event: str, fields: dict[str, Any], total: int, by_role: dict[str, int], humans: int
) -> None:
    data = webhook(f"room.client.{event}", **fields).data
    assert isinstance(data, ClientCountData)
    assert data.num_clients == total == sum(data.num_clients_by_role_name.values())
    assert data.num_clients_by_role_name == by_role
    assert data.humans == humans == total - sum(by_role.get(role, 0) for role in BOT_ROLES)


@pytest.mark.parametrize(
    "data",
    [
        {"numClients": None},
        {"numClients": "3"},
        {"roleName": None},
        {"roleName": ["host"]},
        {"numClientsByRoleName": None},
        {"numClientsByRoleName": {"host": None}},
        {"numClientsByRoleName": [1]},
    ],
)
def test_data_that_whereby_would_not_send_is_sent_as_it_is(data: dict[str, Any]) -> None:
    ((name, value),) = data.items()
    assert sent(webhook("room.client.joined", data=data))["data"][name] == value


def test_a_built_body_can_be_signed_as_whereby_signs_it() -> None:
    built = webhook("room.client.joined", display_name="Zoë")
    verify(sign("s", built.raw, 1_700_000_000).encode(), built.raw, ["s"], 1_700_000_000)


def test_an_unknown_type_is_told_with_the_likely_one() -> None:
    with pytest.raises(ValueError, match=r"'room\.client\.joind'\. Did you mean 'room\.client\.joined'\?"):
        webhook("room.client.joind")


def test_an_unknown_type_that_is_like_none_is_told_with_all_of_them() -> None:
    with pytest.raises(ValueError, match=r"There are: room\.client\.joined, .*, assistant\.requested\."):
        webhook("xyz")


@pytest.mark.parametrize(
    ("name", "likely"), [("role_nam", "role_name"), ("displayname", "display_name"), ("displayNam", "displayName")]
)
def test_an_unknown_field_is_told_with_the_likely_one(name: str, likely: str) -> None:
    with pytest.raises(TypeError, match=f"no field '{name}'. Did you mean '{likely}'.*data={{…}}"):
        webhook("room.client.joined", **{name: "host"})


def test_a_field_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"The data of room\.session\.started has no field 'role_name'"):
        webhook("room.session.started", role_name="host")
