"""Decode bytes to a typed webhook: strict about the JSON, lenient about Whereby's fields.

A field that is missing or odd never rejects a webhook, because real payloads are sparser than the reference.
Refused is only what could not be stored, deduplicated, or read the same way everywhere.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import accumulate
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, ValidationError
from msgspec.json import Decoder

from whereby_trigger.errors import DecodeError
from whereby_trigger.webhook.types import (
    WEBHOOK_CLASSES,
    WEBHOOK_TYPES,
    RoomData,
    UnknownWebhook,
    Webhook,
    WebhookData,
    data_class,
)

T = TypeVar("T", bound=Struct)

_STRING = Decoder(str)
_NUMBER = Decoder(float)
_FIELDS = Decoder(dict[str, Raw])


class LenientReader(Generic[T]):
    """Read one struct type, whose fields all have defaults."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._strict = Decoder(struct)
        self._fields = [
            (field.name, field.encode_name, Decoder(field.type)) for field in msgspec.structs.fields(struct)
        ]

    def read(self, json: bytes | Raw) -> T:
        """Read the struct. Raises `ValidationError` only if the JSON is not an object."""
        try:
            return self._strict.decode(json)
        except ValidationError:
            return self._read_each(read_fields(json))

    def _read_each(self, sent: Mapping[str, Raw]) -> T:
        fitting: dict[str, Any] = {}
        for name, wire_name, decoder in self._fields:
            value = sent.get(wire_name)
            if value is None:
                continue
            try:
                fitting[name] = decoder.decode(value)
            except ValidationError:
                fitting |= _converted(name, value)
        return self._struct(**fitting)


def read_fields(json: bytes | Raw) -> dict[str, Raw]:
    """Return an object's fields, each as JSON. Raises `ValidationError` if it is not an object."""
    return _FIELDS.decode(json)


def read_string(json: Raw) -> str:
    """Return a string, or `""` if the JSON is something else."""
    try:
        return _STRING.decode(json)
    except ValidationError:
        return ""


def _converted(name: str, value: Raw) -> dict[str, Any]:
    convert = _CONVERSIONS.get(name)
    try:
        return {name: convert(value)} if convert else {}
    except ValidationError:
        return {}


def _number_as_text(value: Raw) -> str:
    _NUMBER.decode(value)
    return bytes(value).decode()


def _whole_number(value: Raw) -> int:
    return int(_NUMBER.decode(value))


def _counts(value: Raw) -> dict[str, int]:
    counts: dict[str, int] = {}
    for role, count in read_fields(value).items():
        try:
            counts[role] = _whole_number(count)
        except ValidationError:
            continue
    return counts


_CONVERSIONS: Mapping[str, Callable[[Raw], Any]] = {
    "api_version": _number_as_text,
    "num_clients": _whole_number,
    "num_clients_by_role_name": _counts,
    "duration_in_seconds": _whole_number,
}


MAX_DEPTH = 100
MAX_NAME_LENGTH = 256

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_FINITE = 308

_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# At a backslash, one of three: an escaped backslash or a whole pair, both kept, or half a pair.
_LONE_SURROGATE = re.compile(rb"((?:\\\\|" + _PAIR + rb")+)|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class _Envelope(Struct, frozen=True, kw_only=True, rename="camel"):
    id: str = ""
    type: str = ""
    api_version: str = ""
    created_at: Annotated[datetime, Meta(tz=True)] | None = None
    data: Raw = Raw(b"{}")


_ENVELOPE = LenientReader(_Envelope)
_KNOWN = {type: (WEBHOOK_CLASSES[type], LenientReader(data_class(type))) for type in WEBHOOK_TYPES}


def decode(body: bytes) -> Webhook:
    """Decode the body of a delivery.

    A field that does not fit is converted or left out, unknown fields are ignored, an unknown type becomes an
    `UnknownWebhook`. Of duplicate keys the last wins, as in JavaScript. Half a surrogate pair, which JavaScript
    writes for a name cut in the middle of an emoji, is read as U+FFFD; `raw` keeps the body as it came.
    Raises `DecodeError`, and nothing else, for bytes that are not a webhook.
    Source: Whereby docs, Tracking room events with Webhooks.
    """
    _check_text(body)
    try:
        return _decode_cut_text(body)
    except ValidationError:
        raise DecodeError("the body is not a JSON object") from None
    except (msgspec.DecodeError, ValueError):
        raise DecodeError("the body is not valid JSON") from None
    except RecursionError:
        raise DecodeError("the JSON is nested too deeply") from None


def replace_lone_surrogates(json: bytes, by: bytes = rb"\ufffd") -> bytes:
    """Replace each escape in JSON that is half a surrogate pair: msgspec refuses it, and Python cannot print it."""
    return _LONE_SURROGATE.sub(lambda found: found[1] or by, json)


def identify(body: bytes) -> str:
    """Return the id of a body that cannot be decoded: the same id for the same bytes."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _check_text(body: bytes) -> None:
    if body.startswith(_BYTE_ORDER_MARK):
        raise DecodeError("the body starts with a byte order mark")
    try:
        body.decode()
    except UnicodeDecodeError:
        raise DecodeError("the body is not UTF-8") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise DecodeError("the JSON is nested too deeply")


def _depth(body: bytes) -> int:
    """Return how deeply brackets outside strings nest; the decoder's own limit varies with the stack."""
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    structure = b"".join(unescaped.split(b'"')[::2])
    return max(accumulate(1 if byte in b"{[" else -1 for byte in structure if byte in b"{[]}"), default=0)


def _decode_cut_text(body: bytes) -> Webhook:
    try:
        return _decode(body, body)
    except ValidationError:
        raise
    except msgspec.DecodeError:
        pass
    # Two ids or rooms must not become one because half a character of each was replaced. Replaced by NUL, which a name
    # must not contain, such names are refused; a U+FFFD that Whereby itself sent is not.
    _decode(replace_lone_surrogates(body, by=rb"\u0000"), body)
    return _decode(replace_lone_surrogates(body), body)


def _decode(body: bytes, raw: bytes) -> Webhook:
    envelope = _ENVELOPE.read(body)
    if not envelope.id:
        raise DecodeError("the webhook has no id, or one that is not a string")
    if not envelope.type:
        raise DecodeError("the webhook has no type, or one that is not a string")
    _check_name("id", envelope.id)
    _check_name("type", envelope.type)
    data = bytes(envelope.data)
    if data == b"null":
        data = b"{}"
    if not data.startswith(b"{"):
        raise DecodeError("the webhook's data is not an object")
    return _typed(envelope, data, raw)


def _typed(envelope: _Envelope, data: bytes, raw: bytes) -> Webhook:
    created_at = _in_utc(envelope.created_at)
    if envelope.type not in _KNOWN:
        return UnknownWebhook(
            id=envelope.id,
            api_version=envelope.api_version,
            created_at=created_at,
            type=envelope.type,  # type: ignore[arg-type]
            data=_any_data(data),
            raw=raw,
        )
    webhook_class, reader = _KNOWN[envelope.type]
    return webhook_class(
        id=envelope.id,
        api_version=envelope.api_version,
        created_at=created_at,
        data=_known_data(reader, data),  # type: ignore[arg-type]
        raw=raw,
    )


def _known_data(reader: LenientReader[WebhookData], json: bytes) -> WebhookData:
    data = reader.read(json)
    _check_name("room name", data.room_name)
    if isinstance(data, RoomData):
        if not data.subdomain and (misspelt := read_fields(json).get("subdoman")):
            data = msgspec.structs.replace(data, subdomain=read_string(misspelt))
        _check_name("subdomain", data.subdomain)
    return data


def _any_data(text: bytes) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text, parse_int=_integer)
    for what, name in (("room name", "roomName"), ("subdomain", "subdomain")):
        if isinstance(value := data.get(name), str):
            _check_name(what, value)
    return data


def _integer(digits: str) -> int | float:
    """Return an integer of any length; beyond the range of a double it is infinite, as in JavaScript."""
    return int(digits) if len(digits) <= _LONGEST_FINITE else float(digits)


def _check_name(what: str, value: str) -> None:
    if len(value) > MAX_NAME_LENGTH:
        raise DecodeError(f"the {what} is longer than {MAX_NAME_LENGTH} characters")
    if "\0" in value:
        raise DecodeError(f"the {what} contains a NUL character or half a surrogate pair")


def _in_utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None
