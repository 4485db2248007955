"""A corpus of deliveries, the same every time: all types, several rooms, sparse payloads and odd ones."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

from whereby_trigger.testing import webhook
from whereby_trigger.webhook import ROOM_TYPES, WEBHOOK_TYPES

ROOMS = ("/visit-1", "/visit-2", "/besuch-ü", "/lobby", "/a/b", "/Visit-1")
SUBDOMAINS = ("acme", "JoeBloggsInc")
ROLES = ("host", "visitor", "granted_visitor", "assistant", "recorder", "a role of tomorrow")
MADE_UP = ("meetingId", "roomSessionId", "participantId", "transcriptionId", "recordingId", "filename")
"""Fields that the builder gives a new value each time."""

BEGIN = datetime(2026, 1, 5, 9, tzinfo=UTC)

Payload = dict[str, Any]


def corpus() -> list[bytes]:
    """Return the bodies of more than 200 deliveries, all with different ids."""
    return [*_complete(), *_sparse(), *_odd(), *_undecodable()]


def _build(type: str, number: int, room: str, subdomain: str, role: str = "host") -> Payload:
    built = webhook(
        type,
        id=f"{type}-{number}",
        room=room,
        subdomain=subdomain,
        created_at=BEGIN + timedelta(seconds=number),
        data={"roleName": role} if type in ("room.client.joined", "room.client.left") else {},
    )
    payload: Payload = json.loads(built.raw)
    payload["data"] |= {field: f"{field} {number}" for field in MADE_UP if field in payload["data"]}
    return payload


def _encode(payload: Payload) -> bytes:
    # Half an emoji, which UTF-8 cannot hold, as the escape that JSON.stringify writes.
    return json.dumps(payload, ensure_ascii=False).encode(errors="backslashreplace")


def _complete() -> Iterator[bytes]:
    for number, (room, subdomain, type) in enumerate(product(ROOMS, SUBDOMAINS, WEBHOOK_TYPES)):
        yield _encode(_build(type, number, room, subdomain, ROLES[number % len(ROLES)]))


def _sparse() -> Iterator[bytes]:
    """Yield payloads with missing fields, as real ones have."""
    chance = random.Random(2022)
    for number in range(1000, 1060):
        payload = _build(WEBHOOK_TYPES[number % len(WEBHOOK_TYPES)], number, "/visit-1", "acme")
        for field in chance.sample(sorted(payload["data"]), chance.randint(1, len(payload["data"]))):
            del payload["data"][field]
        for field in ("apiVersion", "createdAt"):
            if chance.random() < 0.3:
                del payload[field]
        yield _encode(payload)


def _odd() -> Iterator[bytes]:
    for number, change in enumerate(ODD, 2000):
        for type in ROOM_TYPES[:3]:
            payload = _build(type, number, "/visit-2", "acme")
            change(payload)
            yield _encode(payload)


def _undecodable() -> Iterator[bytes]:
    yield from (b"", b"{}", b"[]", b"null", b"not json", b"\xff\xfe", b'{"id":"cut', b'{"id":"no type"}', b"[" * 1000)


def _set(*path: str, to: Any) -> Callable[[Payload], None]:
    def change(payload: Payload) -> None:
        inner = payload
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to

    return change


def _misspell_subdomain(payload: Payload) -> None:
    payload["data"]["subdoman"] = payload["data"].pop("subdomain")


ODD: tuple[Callable[[Payload], None], ...] = (
    _misspell_subdomain,
    _set("apiVersion", to=1.0),
    _set("createdAt", to="yesterday"),
    _set("data", to=None),
    _set("data", to={}),
    _set("data", "subdomain", to="evil.example/x?"),
    _set("data", "roomName", to="/../x"),
    _set("data", "roomName", to="/visit-1/?roomKey=x#y"),
    _set("data", "roomName", to=5),
    _set("data", "numClients", to="many"),
    _set("data", "numClientsByRoleName", to=[]),
    _set("data", "displayName", to="[[redacted]]"),
    _set("data", "displayName", to="raises"),
    _set("data", "displayName", to="nul \0 and \N{PILE OF POO}"),
    _set("data", "displayName", to="Zo\ud83d"),
    _set("data", "metadata", to={"\ude00": ["\\", "\\\ud83d"]}),
    _set("data", "fieldOfTomorrow", to={"deep": [1, {"deeper": None}]}),
    _set("type", to="room.client.danced"),
    _set("type", to="trigger_event_success"),
    _set("fieldOfTomorrow", to=1e300),
)
