"""How Whereby's fields are decoded: the reference's, those of real payloads, and those that do not fit."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from whereby_trigger.webhook import (
    WEBHOOK_CLASSES,
    WEBHOOK_TYPES,
    ClientCountData,
    RecordingFinished,
    RoomClientJoined,
    TranscriptionFailed,
    TranscriptionFinished,
    UnknownWebhook,
    decode,
)

FULL_ROOM = {"meetingId": "m-1", "roomName": "/visit-1", "roomSessionId": "s-1", "subdomain": "acme"}
FULL_CLIENT = FULL_ROOM | {
    "displayName": "Robin",
    "participantId": "p-1",
    "metadata": "bed 4",
    "externalId": "e-1",
    "roleName": "granted_visitor",
    "numClients": 3,
    "numClientsByRoleName": {"host": 1, "granted_visitor": 1, "assistant": 1},
    "isDialIn": True,
}


def encoded(type: str = "room.client.joined", data: Any = None, **envelope: Any) -> bytes:
    return json.dumps({"id": "a1", "type": type, "data": data} | envelope).encode()


def joined(**data: Any) -> RoomClientJoined:
    webhook = decode(encoded(data=data))
    assert isinstance(webhook, RoomClientJoined)
    return webhook


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_each_type_has_its_class(type: str) -> None:
    webhook = decode(encoded(type, {"roomName": "/r"}))
    assert webhook.__class__ is WEBHOOK_CLASSES[type]
    assert webhook.type == type
    assert webhook.data.room_name == "/r"


def test_every_field_of_the_envelope_is_read() -> None:
    webhook = decode(encoded(data={}, apiVersion="1.0", createdAt="2026-03-04T05:06:07.089Z"))
    assert webhook.id == "a1"
    assert webhook.api_version == "1.0"
    assert webhook.created_at == datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


def test_every_field_of_a_join_is_read() -> None:
    assert joined(**FULL_CLIENT).data == ClientCountData(
        meeting_id="m-1",
        room_name="/visit-1",
        room_session_id="s-1",
        subdomain="acme",
        display_name="Robin",
        participant_id="p-1",
        metadata="bed 4",
        external_id="e-1",
        role_name="granted_visitor",
        num_clients=3,
        num_clients_by_role_name={"host": 1, "granted_visitor": 1, "assistant": 1},
        is_dial_in=True,
    )


def test_every_field_of_a_transcription_is_read() -> None:
    common = {"roomName": "/r", "roomSessionId": "s", "transcriptionId": "t", "type": "RECORDING_TRANSCRIPTION"}
    finished = common | {
        "status": "ready",
        "filename": "f.md",
        "storageType": "SELF_HOSTED",
        "durationInSeconds": 61,
        "recordingId": "r",
    }
    webhook = decode(encoded("transcription.finished", finished))
    assert isinstance(webhook, TranscriptionFinished)
    read = webhook.data
    assert (read.room_session_id, read.transcription_id, read.type) == ("s", "t", "RECORDING_TRANSCRIPTION")
    assert (read.status, read.filename, read.storage_type) == ("ready", "f.md", "SELF_HOSTED")
    assert (read.duration_in_seconds, read.recording_id) == (61, "r")

    failed = decode(encoded("transcription.failed", common | {"status": "failed", "error": "no audio"}))
    assert isinstance(failed, TranscriptionFailed)
    assert (failed.data.status, failed.data.error) == ("failed", "no audio")


def test_a_join_as_sparse_as_those_of_2022_is_read() -> None:
    data = joined(roomName="/visit-1", roleName="visitor", numClients=1, metadata=None).data
    assert (data.room_name, data.role_name, data.num_clients) == ("/visit-1", "visitor", 1)
    assert (data.subdomain, data.display_name, data.participant_id) == ("", "", "")
    assert (data.room_session_id, data.external_id, data.meeting_id) == (None, None, None)
    assert (data.num_clients_by_role_name, data.is_dial_in) == ({}, None)


def test_a_recording_without_a_room_name_as_in_2023_is_read() -> None:
    data = {"filename": "f.mp4", "recordingId": "r-1", "status": "completed"}
    webhook = decode(encoded("recording.finished", data))
    assert isinstance(webhook, RecordingFinished)
    assert (webhook.data.room_name, webhook.data.filename) == ("", "f.mp4")
    assert (webhook.data.recording_id, webhook.data.status) == ("r-1", "completed")


@pytest.mark.parametrize("type", [*WEBHOOK_TYPES, "room.new"])
@pytest.mark.parametrize("empty", ["{}", "null", None])
def test_a_webhook_without_data_is_one_with_empty_data(type: str, empty: str | None) -> None:
    data = "" if empty is None else f',"data":{empty}'
    webhook = decode(f'{{"id":"a1","type":"{type}"{data}}}'.encode())
    assert webhook == (
        WEBHOOK_CLASSES[type](id="a1", raw=webhook.raw)
        if type in WEBHOOK_CLASSES
        else UnknownWebhook(id="a1", type=type, data={}, raw=webhook.raw)  # type: ignore[arg-type]
    )


CONTRADICTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "subdomain": ({"subdomain": "acme"}, {"subdomain": "acme"}),
    "subdoman where subdomain is absent": ({"subdoman": "acme"}, {"subdomain": "acme"}),
    "subdoman where subdomain is null": ({"subdoman": "acme", "subdomain": None}, {"subdomain": "acme"}),
    "both, and subdomain counts": ({"subdoman": "no", "subdomain": "acme"}, {"subdomain": "acme"}),
    "a subdoman that is no string": ({"subdoman": 7}, {"subdomain": ""}),
    "visitor is a role": ({"roleName": "visitor"}, {"role_name": "visitor"}),
    "assistant is a role": ({"roleName": "assistant"}, {"role_name": "assistant"}),
    "a role not listed yet": ({"roleName": "observer"}, {"role_name": "observer"}),
    "counts by role are sparse": (
        {"numClientsByRoleName": {"host": 1}},
        {"num_clients_by_role_name": {"host": 1}},
    ),
    "a room name with a slash": ({"roomName": "/r"}, {"room_name": "/r"}),
    "a room name without": ({"roomName": "r"}, {"room_name": "r"}),
}


@pytest.mark.parametrize(("sent", "read"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_where_the_reference_contradicts_itself_both_are_read(sent: dict[str, Any], read: dict[str, Any]) -> None:
    assert joined(**sent).data == ClientCountData(**read)


@pytest.mark.parametrize(
    ("sent", "read"),
    [("1.0", "1.0"), (1.0, "1.0"), (1, "1"), (2.5, "2.5"), (None, ""), (True, ""), ([], ""), ({"a": 1}, "")],
)
def test_the_api_version_may_be_a_number(sent: object, read: str) -> None:
    assert decode(encoded(apiVersion=sent)).api_version == read


ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "null for a string": ({"roomName": None, "displayName": None}, {}),
    "a number for a string": ({"displayName": 7}, {}),
    "an object for a nullable string": ({"metadata": {"bed": 4}}, {}),
    "a string for a number": ({"numClients": "3"}, {}),
    "a boolean for a number": ({"numClients": True}, {}),
    "a whole float for a number": ({"numClients": 3.0}, {"num_clients": 3}),
    "a string for a boolean": ({"isDialIn": "true"}, {}),
    "null for the counts": ({"numClientsByRoleName": None}, {}),
    "an array for the counts": ({"numClientsByRoleName": [1]}, {}),
    "odd values among the counts": (
        {"numClientsByRoleName": {"host": 2.0, "visitor": None, "viewer": "1", "owner": 1}},
        {"num_clients_by_role_name": {"host": 2, "owner": 1}},
    ),
    "an array for a role": ({"roleName": ["host"]}, {}),
}


@pytest.mark.parametrize(("odd", "read"), ODD.values(), ids=ODD)
def test_a_field_that_does_not_fit_is_left_out_or_converted_and_the_others_stay(
    odd: dict[str, Any], read: dict[str, Any]
) -> None:
    data = joined(**({"externalId": "e-1"} | odd | {"participantId": "p-1"})).data
    assert data == ClientCountData(**({"external_id": "e-1", "participant_id": "p-1"} | read))


def test_a_duration_with_a_fraction_is_cut_to_whole_seconds() -> None:
    webhook = decode(encoded("transcription.finished", {"durationInSeconds": 61.9}))
    assert isinstance(webhook, TranscriptionFinished)
    assert webhook.data.duration_in_seconds == 61


@pytest.mark.parametrize(
    "odd", ["", "yesterday", "2026-03-04", "2026-03-04T05:06:07", 1_700_000_000, None, [], "9999-13-01T00:00:00Z"]
)
def test_a_creation_time_that_is_none_is_left_out(odd: object) -> None:
    webhook = decode(encoded(data={"roomName": "/r"}, createdAt=odd, apiVersion="1.0"))
    assert webhook.created_at is None
    assert webhook.api_version == "1.0"
    assert webhook.data == ClientCountData(room_name="/r")


def test_a_creation_time_in_another_zone_is_put_into_utc() -> None:
    webhook = decode(encoded(createdAt="2026-03-04T05:06:07.089+05:30"))
    assert webhook.created_at is not None
    assert webhook.created_at.isoformat() == "2026-03-03T23:36:07.089000+00:00"


@pytest.mark.parametrize("extreme", ["0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00"])
def test_a_creation_time_that_utc_cannot_hold_is_left_out(extreme: str) -> None:
    assert decode(encoded(createdAt=extreme)).created_at is None


def test_fields_that_whereby_adds_pass_and_stay_in_the_raw_body() -> None:
    raw = encoded(data=FULL_CLIENT | {"mood": {"level": 3}}, priority="high")
    webhook = decode(raw)
    assert webhook.raw == raw
    assert webhook.data == joined(**FULL_CLIENT).data


def test_the_names_in_an_unknown_type_are_whereby_s_own() -> None:
    webhook = decode(encoded("room.client.waved", FULL_CLIENT, apiVersion=2, createdAt="2026-03-04T05:06:07Z"))
    assert isinstance(webhook, UnknownWebhook)
    assert webhook.data == FULL_CLIENT
    assert webhook.api_version == "2"
    assert webhook.created_at == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
