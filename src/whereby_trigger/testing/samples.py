"""Realistic `data` for each webhook type, without the room's name; all values are invented."""

import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from whereby_trigger.webhook.types import WebhookType

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
    role = given.get("roleName", "visitor")
    if by_role := given.get("numClientsByRoleName"):
        return {"roleName": role, "numClients": sum(by_role.values())}
    present = 1 if type == "room.client.joined" else 0
    total = given.get("numClients")
    if total is None:
        total = present + 1
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
