"""Build realistic webhooks: complete, in Whereby's wire format, decoded as a delivery would be."""

import difflib
import json
import secrets
import uuid
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, overload

import msgspec

from whereby_trigger.webhook.decode import decode
from whereby_trigger.webhook.types import (
    ROOM_TYPES,
    WEBHOOK_TYPES,
    AssistantRequested,
    RecordingFinished,
    RoomClientJoined,
    RoomClientKnockCancelled,
    RoomClientKnocked,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
    TranscriptionFailed,
    TranscriptionFinished,
    TranscriptionStarted,
    Webhook,
    WebhookType,
    data_class,
)


@overload
def webhook(type: Literal["room.client.joined"], /, **fields: Any) -> RoomClientJoined: ...
@overload
def webhook(type: Literal["room.client.left"], /, **fields: Any) -> RoomClientLeft: ...
@overload
def webhook(type: Literal["room.client.knocked"], /, **fields: Any) -> RoomClientKnocked: ...
@overload
def webhook(type: Literal["room.client.knockCancelled"], /, **fields: Any) -> RoomClientKnockCancelled: ...
@overload
def webhook(type: Literal["room.session.started"], /, **fields: Any) -> RoomSessionStarted: ...
@overload
def webhook(type: Literal["room.session.ended"], /, **fields: Any) -> RoomSessionEnded: ...
@overload
def webhook(type: Literal["transcription.started"], /, **fields: Any) -> TranscriptionStarted: ...
@overload
def webhook(type: Literal["transcription.finished"], /, **fields: Any) -> TranscriptionFinished: ...
@overload
def webhook(type: Literal["transcription.failed"], /, **fields: Any) -> TranscriptionFailed: ...
@overload
def webhook(type: Literal["recording.finished"], /, **fields: Any) -> RecordingFinished: ...
@overload
def webhook(type: Literal["assistant.requested"], /, **fields: Any) -> AssistantRequested: ...
@overload
def webhook(
    type: str,
    /,
    *,
    room: str = ...,
    subdomain: str = ...,
    id: str | None = ...,
    created_at: datetime | None = ...,
    data: Mapping[str, Any] | None = ...,
    **fields: Any,
) -> Webhook: ...
def webhook(
    type: str,
    /,
    *,
    room: str = "/visit-1",
    subdomain: str = "acme",
    id: str | None = None,
    created_at: datetime | None = None,
    data: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Webhook:
    """Build a webhook of one of Whereby's types; `.raw` is the JSON body that Whereby would post.

    `fields` are fields of the webhook's `data`, by their Python or wire name; `data` takes wire names, even unknown
    ones, and comes before `fields`. By default `id` is random, `created_at` is now, and all webhooks of a room are of
    one session: name another `room_session_id` for its next meeting. A type without a subdomain ignores it.
    Raises `ValueError` for an unknown type and `TypeError` for an unknown field, each naming the likely one.
    """
    if type not in WEBHOOK_TYPES:
        hint = _did_you_mean(type, WEBHOOK_TYPES)
        raise ValueError(f"Whereby sends no webhook of the type {type!r}. {hint}")
    given = wire_fields(type, fields, data)
    names = {"roomName": room.lstrip("/") if type == "recording.finished" else "/" + room.lstrip("/")}
    if type in ROOM_TYPES:
        names["subdomain"] = subdomain
    payload = {
        "id": secrets.token_hex(32) if id is None else id,
        "apiVersion": "1.0",
        "createdAt": _wire_time(created_at or datetime.now(UTC)),
        "type": type,
        "data": names | sample_data(type, f"{subdomain}/{room.lstrip('/')}", given) | given,
    }
    return decode(_encode(payload))


def _encode(payload: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(payload)
    except UnicodeEncodeError:
        # UTF-8 cannot hold half a surrogate pair: write it as an escape, as JavaScript does.
        return json.dumps(msgspec.to_builtins(payload)).encode()


def wire_fields(type: WebhookType, fields: Mapping[str, Any], data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return fields of a webhook's data by their wire names; `data` has those already, even unknown ones.

    Raises `TypeError` for an unknown one in `fields`, which names the likely one.
    """
    wire_names = _wire_names(type)
    for name in fields:
        if name not in wire_names:
            raise TypeError(
                f"The data of {type} has no field {name!r}. {_did_you_mean(name, wire_names)} "
                "A field that Whereby has added since goes into data={…}, by its wire name."
            )
    return {wire_names[name]: value for name, value in fields.items()} | dict(data or {})


@cache
def _wire_names(type: WebhookType) -> Mapping[str, str]:
    """Return the wire name of each field of a type's data, by its Python and by its wire name."""
    wire_names = {field.name: field.encode_name for field in msgspec.structs.fields(data_class(type))}
    return wire_names | {wire_name: wire_name for wire_name in wire_names.values()}


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."


def _wire_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Fields = dict[str, Any]


def sample_data(type: WebhookType, place: str, given: Mapping[str, Any]) -> Fields:
    """Return invented `data` for a webhook, by wire names, consistent with the given fields; a room has one session."""
    family = type.partition(".")[0]
    session = str(uuid.uuid5(uuid.NAMESPACE_URL, place))
    if family == "transcription":
        return _transcription(type, session, given)
    if family == "recording":
        return {"filename": _filename("mp4"), "recordingId": _id(), "status": "completed"}
    room = {"meetingId": str(secrets.randbelow(90_000_000) + 10_000_000), "roomSessionId": session}
    if not type.startswith("room.client."):
        return room
    client = room | {
        "displayName": "Robin Example",
        "participantId": _id(),
        "metadata": None,
        "externalId": None,
    }
    if type in ("room.client.knocked", "room.client.knockCancelled"):
        return client
    return client | _counts(type, given) | {"isDialIn": False}


def _counts(type: WebhookType, given: Mapping[str, Any]) -> Fields:
    """Return role, total and counts, with a host beside the client; what is not given follows from the rest."""
    # What is given may be wrong on purpose.
    role = given.get("roleName")
    role = role if isinstance(role, str) else "visitor"
    counted = given.get("numClientsByRoleName")
    if isinstance(counted, Mapping) and all(isinstance(count, int) for count in counted.values()):
        return {"roleName": role, "numClients": sum(counted.values())}
    present = 1 if type == "room.client.joined" else 0
    total = given.get("numClients")
    total = total if isinstance(total, int) else present + 1
    by_role = {role: min(present, total)}
    by_role["host"] = by_role.get("host", 0) + total - by_role[role]
    counts = {name: count for name, count in by_role.items() if count}
    return {"roleName": role, "numClients": total, "numClientsByRoleName": counts}


def _transcription(type: WebhookType, session: str, given: Mapping[str, Any]) -> Fields:
    data: Fields = {
        "roomSessionId": session,
        "transcriptionId": _id(),
        "type": "LIVE_TRANSCRIPTION",
        "status": "in_progress",
    }
    if type == "transcription.finished":
        data |= {"status": "ready", "filename": _filename("md"), "storageType": "WHEREBY_HOSTED"}
        data["durationInSeconds"] = 1260
        if given.get("type") == "RECORDING_TRANSCRIPTION":
            data["recordingId"] = _id()
    if type == "transcription.failed":
        data |= {"status": "failed", "error": "The audio could not be read"}
    return data


def _id() -> str:
    return str(uuid.uuid4())


def _filename(extension: str) -> str:
    return f"{_id()}.{extension}"
