"""What a type checker knows about webhooks. Checked by `test_typing.py`, which also runs it."""

from typing import assert_type

from whereby_trigger.testing import webhook
from whereby_trigger.webhook import (
    AssistantRequested,
    ClientCountData,
    RecordingFinished,
    RoleName,
    RoomClientJoined,
    RoomClientLeft,
    RoomSessionStarted,
    RoomWebhook,
    TranscriptionFailed,
    UnknownWebhook,
    Webhook,
    decode,
)


def describe(event: Webhook) -> str:
    if event.type == "room.client.joined":
        assert_type(event, RoomClientJoined)
        assert_type(event.data.role_name, RoleName)
        assert_type(event.data.num_clients, int | None)
        return f"{event.data.role_name} of {event.data.humans}"
    if event.type in ("room.client.left",):
        assert_type(event, RoomClientLeft)
        assert_type(event.data, ClientCountData)
        return event.data.participant_id
    match event.type:
        case "transcription.failed":
            assert_type(event, TranscriptionFailed)
            return event.data.error
        case "recording.finished":
            assert_type(event, RecordingFinished)
            return event.data.filename
    if isinstance(event, UnknownWebhook):
        return ", ".join(event.data)
    return event.data.room_name


def subdomain(event: RoomWebhook) -> str:
    return event.data.subdomain


def exercise() -> list[str]:
    joined = webhook("room.client.joined", role_name="host")
    assert_type(joined, RoomClientJoined)
    assert_type(webhook("room.session.started", room="/r", subdomain="acme"), RoomSessionStarted)
    requested = webhook("assistant.requested", subdomain="clinic")
    assert_type(requested, AssistantRequested)
    anything = decode(joined.raw)
    assert_type(anything, Webhook)
    failed = webhook("transcription.failed", error="no audio")
    return [describe(anything), describe(failed), describe(requested), subdomain(requested)]
