"""Remove from a body what it says of a person, and find out of whom it speaks. Pure."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Final, get_args

import msgspec

from whereby_trigger.errors import DecodeError
from whereby_trigger.webhook.decode import decode
from whereby_trigger.webhook.types import RoleName

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

OBJECTS: Final = frozenset({"data", "numClientsByRoleName"})
"""Those of them that hold others. If one is a text instead, nobody knows what it says."""

KNOWN: Final = IMPERSONAL - OBJECTS

DEEPEST: Final = 32

PLAIN: Final = re.compile(r"[\x20-\x7e]+")
PLAIN_ESCAPE: Final = re.compile(rb"\\u00[0-7]|\\[^u]")
"""A way in which JSON may write a character of a plain value other than as itself."""

FEW: Final = 10
"""Values for each of which a body is searched in less time than it takes to read it."""

ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
ANY_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"\\/bfnrt]))")
SHORT_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

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


def is_about(body: bytes, field: str, *values: str) -> bool:
    """Return True if a field of a body has one of the values, at any depth.

    Of two fields of one name, both count. If the body cannot be read, return True if it holds one of the values.
    """
    if len(values) <= FEW and not any(_may_hold(body, value) for value in values):
        return False
    try:
        return not values_of(body, field).isdisjoint(values)
    except (ValueError, RecursionError):
        return any(value in text for text in _readings(body) for value in values)


def _may_hold(body: bytes, value: str) -> bool:
    """Return False if a body cannot hold a value, however it is written, which is quicker to see than to read it."""
    if value.encode("utf-8", "replace") in body or not PLAIN.fullmatch(value):
        return True
    # A body in UTF-16 has NULs.
    return b"\0" in body or PLAIN_ESCAPE.search(body) is not None


def values_of(body: bytes, field: str) -> set[str]:
    """Return the values of a field, at any depth, as text; raises ValueError or RecursionError if it is no JSON."""
    leaves = _leaves(json.loads(body, object_pairs_hook=tuple))
    return {str(value) for name, value in leaves if name == field and isinstance(value, str | int)}


def texts_of(body: bytes, field: str) -> set[str]:
    """Return the values of a field, at any depth, as text, also of a body that cannot be read, as far as it goes."""
    try:
        return values_of(body, field)
    except (ValueError, RecursionError):
        written = re.compile(rf'"{re.escape(field)}"\s*:\s*"([^"]*)')
        return {found[1] for text in _readings(body) for found in written.finditer(text)}


def masked(value: Any, mask: str, name: str | None = None, depth: int = 0) -> Any:
    """Return JSON with a mask in place of each value whose field is not IMPERSONAL; a value of None stays."""
    if depth > DEEPEST:
        return mask
    if value is None:
        return None
    if isinstance(value, dict) and (name is None or name in IMPERSONAL):
        return {_field(field, mask): masked(inner, mask, field, depth + 1) for field, inner in value.items()}
    known = name is not None and name in KNOWN and not isinstance(value, list | dict)
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
        # Some write a slash as \/. And text within text is escaped twice: only the first of these finds all of it.
        for escape in (ESCAPE, ANY_ESCAPE):
            unescaped = escape.sub(_unescaped, text)
            # Two halves of an emoji are one character.
            yield unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescaped(found: re.Match[str]) -> str:
    if found[1] is not None:
        return chr(int(found[1], 16))
    return SHORT_ESCAPES.get(found[2], found[2])


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
