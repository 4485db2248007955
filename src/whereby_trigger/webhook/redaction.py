"""Remove from a body what it says of a person, and find out of whom it speaks. Pure."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Final, get_args

import msgspec

from whereby_trigger.errors import DecodeError
from whereby_trigger.webhook.data import RoleName
from whereby_trigger.webhook.decode import decode

REMOVED: Final = "[[removed]]"
"""What stands in place of a value that was removed here. Where Whereby itself left out a name, it says [[redacted]]."""

PERSONAL: Final = ("displayName", "metadata", "externalId", "participantId")
"""The fields that say who somebody is. The name of a person who dialled in is a phone number."""

IMPERSONAL: Final = frozenset(
    {
        *("id", "apiVersion", "type", "createdAt", "data"),
        *("roomName", "meetingId", "roomSessionId", "subdomain", "subdoman", "roleName", "isDialIn"),
        *("numClients", "numClientsByRoleName", "status", "storageType", "durationInSeconds"),
        *("transcriptionId", "recordingId"),
        *get_args(RoleName),
    }
)
"""The fields that say nothing of a person. Not among them: PERSONAL, `filename`, and what Whereby adds tomorrow."""

DEEPEST: Final = 32

ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")

UNREADABLE: Final = json.dumps(REMOVED).encode()
"""What stands in place of a body in which nobody can find the fields."""


def redacted(body: bytes, fields: Collection[str]) -> bytes:
    """Return a body with REMOVED in place of these fields' values, at any depth.

    `fields` are names on the wire. A body that cannot be read is replaced whole.
    """
    if not fields:
        return body
    try:
        return _packed(_without(json.loads(body.decode()), fields))
    except (ValueError, RecursionError):
        # No JSON, or a number that Python cannot write again.
        return minimal(body)


def forgotten(body: bytes) -> bytes:
    """Return a body with REMOVED in place of every value, and odd field name, that may say something of a person."""
    try:
        return _packed(masked(json.loads(body.decode()), REMOVED))
    except (ValueError, RecursionError):
        return minimal(body)


def minimal(body: bytes) -> bytes:
    """Return a body that says only which webhook it is: its id, type and time, its room and its session."""
    try:
        webhook = decode(body)
    except DecodeError:
        return UNREADABLE
    data = webhook.data
    if not isinstance(data, dict):
        data = msgspec.to_builtins(data)
    kept = {
        name: data[name]
        for name in ("roomName", "roomSessionId", "subdomain")
        if isinstance(data.get(name), str) and data[name]
    }
    fields: dict[str, Any] = {"id": webhook.id, "type": webhook.type, "createdAt": webhook.created_at, "data": kept}
    return msgspec.json.encode({name: value for name, value in fields.items() if value is not None} | {"rest": REMOVED})


def is_redacted(body: bytes) -> bool:
    """Return True if one of the functions above removed something from a body."""
    if REMOVED.encode() not in body:
        return False
    try:
        return any(value == REMOVED for _, value in _leaves(json.loads(body)))
    except (ValueError, RecursionError):
        return False


def is_about(body: bytes, field: str, value: str) -> bool:
    """Return True if a field of a body has a value, at any depth; if it cannot be read, True if it holds the value.

    Of two fields of one name, both count.
    """
    written = value.encode("utf-8", "replace")
    # A value may be written with escapes, and a body in UTF-16, which has NULs, or in Latin-1.
    if written not in body and value.isascii() and b"\\" not in body and b"\0" not in body:
        return False
    try:
        return value in values_of(body, field)
    except (ValueError, RecursionError):
        return any(value in text for text in _readings(body))


def values_of(body: bytes, field: str) -> set[str]:
    """Return the values of a field, at any depth, as text; raises ValueError or RecursionError if it is no JSON."""
    leaves = _leaves(json.loads(body, object_pairs_hook=tuple))
    return {str(value) for name, value in leaves if name == field and isinstance(value, str | int)}


def masked(value: Any, mask: str, name: str | None = None, depth: int = 0) -> Any:
    """Return JSON with a mask in place of each value whose field is not IMPERSONAL; a value of None stays."""
    if depth > DEEPEST:
        return mask
    if value is None:
        return None
    if isinstance(value, dict) and (name is None or name in IMPERSONAL):
        return {_field(field, mask): masked(inner, mask, field, depth + 1) for field, inner in value.items()}
    known = name is not None and name in IMPERSONAL and not isinstance(value, list | dict)
    return value if known else mask


def _field(name: str, mask: str) -> str:
    # A sender may put anything into the name of a field, too.
    return name if name.isascii() and name.isidentifier() and len(name) <= 40 else mask


def _packed(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _readings(body: bytes) -> Iterator[str]:
    """Yield what bytes that are no JSON may be read as, with escapes and without."""
    for encoding in ("utf-8", "latin-1", "utf-16-le", "utf-16-be"):
        text = body.decode(encoding, "replace")
        yield text
        unescaped = ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
        # Two halves of an emoji are one character.
        yield unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without(value: Any, fields: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: REMOVED if name in fields and inner not in (None, "") else _without(inner, fields)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_without(inner, fields) for inner in value]
    return value


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value that is no object and no list, with the name of the field that it is in.

    An object is a dict, or a tuple of pairs.
    """
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple):
        for field, inner in value:
            yield from _leaves(inner, field)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value
