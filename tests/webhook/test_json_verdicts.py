"""Which correctly signed bodies are webhooks: the same verdict everywhere, and never another exception."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.errors import DecodeError
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import RoomClientJoined, RoomClientLeft, UnknownWebhook, decode, identify

NAME = "Robin Canary"


def body(**changes: str) -> bytes:
    """Return a webhook built from JSON texts."""
    parts = {
        "id": '"a1"',
        "type": '"room.client.joined"',
        "data": f'{{"roomName":"/r","subdomain":"acme","displayName":"{NAME}"}}',
    } | changes
    return ("{" + ",".join(f'"{name}":{value}' for name, value in parts.items()) + "}").encode()


def data(**fields: str) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


LONG = json.dumps("x" * 257)
UNKNOWN = '"room.client.waved"'

REFUSED: dict[str, tuple[bytes, str]] = {
    "invalid UTF-8": (body().replace(b"Robin", b"Rob\xffn"), "the body is not UTF-8"),
    "invalid UTF-8 in an unknown field": (body(x='"?"').replace(b"?", b"\xc3"), "the body is not UTF-8"),
    "a surrogate in UTF-8": (body(x='"?"').replace(b"?", b"\xed\xa0\x80"), "the body is not UTF-8"),
    "invalid UTF-8 that is no JSON either": (b"\xff{", "the body is not UTF-8"),
    "UTF-16": (body().decode().encode("utf-16"), "the body is not UTF-8"),
    "BOM": (b"\xef\xbb\xbf" + body(), "the body starts with a byte order mark"),
    "nesting deeper than the decoder takes": (body(x=nested(100)), "the JSON is nested too deeply"),
    "nesting deeper still": (body(x=nested(60_000)), "the JSON is nested too deeply"),
    "nesting that is never closed": (b"[" * 200_000, "the JSON is nested too deeply"),
    "NaN": (body(x="NaN"), "the body is not valid JSON"),
    "NaN as a count": (body(data=data(numClients="NaN")), "the body is not valid JSON"),
    "Infinity": (body(x="Infinity"), "the body is not valid JSON"),
    "-Infinity": (body(x="-Infinity"), "the body is not valid JSON"),
    "truncated": (body()[:-1], "the body is not valid JSON"),
    "truncated in a name": (body()[:-10], "the body is not valid JSON"),
    "empty": (b"", "the body is not valid JSON"),
    "something after the end": (body() + b"}", "the body is not valid JSON"),
    "a NUL byte after the end": (body() + b"\0", "the body is not valid JSON"),
    "a lone surrogate in the id": (body(id=r'"a\ud800"'), "the id contains"),
    "a lone surrogate in the type": (body(type=r'"room\uDC00"'), "the type contains"),
    "a lone surrogate in the room name": (body(data=data(roomName=r'"/Zo\ud83d"')), "the room name contains"),
    "a lone surrogate in the subdomain": (body(data=data(subdomain=r'"a\udfff"')), "the subdomain contains"),
    "a lone surrogate in the misspelt subdomain": (body(data=data(subdoman=r'"a\udfff"')), "the subdomain contains"),
    "a lone surrogate in a recording's room name": (
        body(type='"recording.finished"', data=data(roomName=r'"\ud83d"')),
        "the room name contains",
    ),
    "a lone surrogate in an unknown type's room name": (
        body(type=UNKNOWN, data=data(roomName=r'"\ud83d"')),
        "the room name contains",
    ),
    "a lone surrogate in what is no object": (rb'["\ud83d"]', "the body is not a JSON object"),
    "a lone surrogate and NaN": (body(x=r'["\ud83d",NaN]'), "the body is not valid JSON"),
    "a lone surrogate in what is cut off": (body(x=r'"\ud83d"')[:-1], "the body is not valid JSON"),
    "a surrogate's escape that is cut off": (body(x=r'"\ud83"'), "the body is not valid JSON"),
    "a surrogate's escape that is not hexadecimal": (body(x=r'"\ud8g0"'), "the body is not valid JSON"),
    "a surrogate's escape outside strings": (body(x=r"\ud83d"), "the body is not valid JSON"),
    "NUL in the id": (body(id=r'"a\u0000"'), "the id contains a NUL character"),
    "NUL in the type": (body(type=r'"room\u0000"'), "the type contains a NUL character"),
    "NUL in the room name": (
        body(data=data(roomName=r'"/\u0000"')),
        "the room name contains a NUL character",
    ),
    "NUL in the subdomain": (
        body(data=data(subdomain=r'"a\u0000"')),
        "the subdomain contains a NUL character",
    ),
    "NUL in the misspelt subdomain": (
        body(data=data(subdoman=r'"a\u0000"')),
        "the subdomain contains a NUL character",
    ),
    "NUL in a recording's room name": (
        body(type='"recording.finished"', data=data(roomName=r'"\u0000"')),
        "the room name contains a NUL character",
    ),
    "NUL in an unknown type's room name": (
        body(type=UNKNOWN, data=data(roomName=r'"\u0000"')),
        "the room name contains a NUL character",
    ),
    "an id over 256 characters": (body(id=LONG), "the id is longer than 256 characters"),
    "a type over 256 characters": (body(type=LONG), "the type is longer than 256 characters"),
    "a room name over 256 characters": (
        body(data=data(roomName=LONG)),
        "the room name is longer than 256 characters",
    ),
    "a subdomain over 256 characters": (
        body(data=data(subdomain=LONG)),
        "the subdomain is longer than 256 characters",
    ),
    "an unknown type's subdomain over 256 characters": (
        body(type=UNKNOWN, data=data(subdomain=LONG)),
        "the subdomain is longer than 256 characters",
    ),
    "no id": (b'{"type":"room.client.joined","data":{}}', "the webhook has no id"),
    "an empty id": (body(id='""'), "the webhook has no id"),
    "a null id": (body(id="null"), "the webhook has no id"),
    "an id that is a number": (body(id="7"), "the webhook has no id"),
    "no type": (b'{"id":"a1","data":{}}', "the webhook has no type"),
    "an empty type": (body(type='""'), "the webhook has no type"),
    "a type that is a number": (body(type="7"), "the webhook has no type"),
    "an empty object": (b"{}", "the webhook has no id"),
    "data that is a string": (body(data='"x"'), "the webhook's data is not an object"),
    "data that is an array": (body(data="[]"), "the webhook's data is not an object"),
    "data that is a number": (body(data="1"), "the webhook's data is not an object"),
    "data that is false": (body(data="false"), "the webhook's data is not an object"),
    "an array": (b"[]", "the body is not a JSON object"),
    "a string": (b'"webhook"', "the body is not a JSON object"),
    "a number": (b"1e999", "the body is not a JSON object"),
    "null": (b"null", "the body is not a JSON object"),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_body_is_refused_with_its_reason_and_none_of_its_content(raw: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(raw)
    assert str(caught.value).startswith(reason)
    assert NAME not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


TAKEN: dict[str, bytes] = {
    "NUL in a known field": body(data=data(displayName=r'"a\u0000"')),
    "NUL in an unknown field": body(x=r'"\u0000"'),
    "NUL in an unknown type's field": body(type=UNKNOWN, data=data(x=r'"\u0000"')),
    "NUL in a key": body(**{r"\u0000": "1"}),
    "1e999 in an unknown field": body(x="1e999"),
    "1e999 in an unknown field of data": body(data=data(x="[-1e999]")),
    "1e999 in an unknown type's data": body(type=UNKNOWN, data=data(x="-1e999")),
    "1e999 for a count": body(data=data(numClients="1e999")),
    "an integer of 5,000 digits in an unknown field": body(x="9" * 5000),
    "an integer of 5,000 digits for a count": body(data=data(numClients="9" * 5000)),
    "an integer of 5,000 digits in an unknown type's data": body(type=UNKNOWN, data=data(x="-" + "9" * 5000)),
    "an id of 256 characters": body(id=json.dumps("x" * 256)),
    "a room name of 256 characters, of four bytes each": body(data=data(roomName=json.dumps("🎥" * 256))),
    "an escaped pair of surrogates": body(data=data(displayName=r'"\ud83d\ude00"')),
    "half an emoji at the end of a name": body(data=data(roomName='"/r"', displayName=r'"Zo\ud83d"')),
    "half an emoji at the beginning of a name": body(data=data(displayName=r'"\ude00Zo"')),
    "half an emoji in upper case": body(data=data(displayName=r'"Zo\uD83D"')),
    "half an emoji in a role": body(data=data(roleName=r'"\ud83d"')),
    "half an emoji in a count's key": body(data=data(numClientsByRoleName=r'{"host":1,"\ud83d":2}')),
    "half an emoji where a date belongs": body(createdAt=r'"\ud83d"'),
    "half an emoji in an unknown field": body(x=r'"\ud83d"'),
    "half an emoji in an unknown key": body(**{r"\ud83d": "1"}),
    "half an emoji deep in an unknown field": body(data=data(x=r'[{"y":"a\udfff"}]')),
    "half an emoji in an unknown type's data": body(type=UNKNOWN, data=data(x=r'"\ud83d"')),
    "two high surrogates": body(x=r'"\ud83d\ud83d"'),
    "a pair the wrong way round": body(x=r'"\ude00\ud83d"'),
    "half an emoji after an escaped backslash": body(x=r'"\\\ud83d"'),
    "half an emoji beside a room name with U+FFFD": body(data=data(roomName=r'"/\ufffd"', displayName=r'"\ud83d"')),
    "the deepest nesting the decoder takes": body(x=nested(99)),
    "many brackets that do not nest": body(x="[" + ",".join(["[]"] * 500) + "]"),
    "brackets in a string": body(x=json.dumps("[{" * 500)),
    "brackets in a string after a quote": body(x=json.dumps('"' + "[{" * 500)),
    "brackets in a string after one that ends in a backslash": body(x='"\\\\"', y=json.dumps("[{" * 500)),
    "white space around": b" \r\n\t" + body() + b"\n",
    "no data": b'{"id":"a1","type":"room.client.joined"}',
    "null data": body(data="null"),
    "null data of an unknown type": body(type=UNKNOWN, data="null"),
}


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN)
def test_a_body_is_taken_as_it_came(raw: bytes) -> None:
    decoded = decode(raw)
    assert decoded.raw == raw
    assert decoded.type in ("room.client.joined", "room.client.waved")


def well_formed(value: Any) -> Any:
    """Replace each lone surrogate in a JSON value by U+FFFD, as JavaScript's toWellFormed() does."""
    if isinstance(value, str):
        paired = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return re.sub("[\ud800-\udfff]", "\ufffd", paired)
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): well_formed(item) for key, item in value.items()}
    return value


def upper_case_escapes(json: bytes) -> bytes:
    """Write the digits of \\u escapes in upper case, except after an escaped backslash."""
    return re.sub(rb"(\\\\)|\\u(....)", lambda match: match[1] or b"\\u" + match[2].upper(), json)


CUT_TEXT = st.lists(st.sampled_from(["\ud83d", "\ude00", "\udfff", "\\", '"', "ud83d", "\ufffd", "\n", "é"])).map(
    "".join
)
CUT_JSON = st.recursive(
    CUT_TEXT | st.none() | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(CUT_TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(value=CUT_JSON, upper=st.booleans())
def test_half_an_emoji_anywhere_is_read_as_the_replacement_character(value: Any, upper: bool) -> None:
    raw = json.dumps({"id": "a1", "type": "room.client.waved", "data": {"x": value}}).encode()
    raw = upper_case_escapes(raw) if upper else raw
    decoded = decode(raw)
    assert decoded.raw == raw
    assert isinstance(decoded, UnknownWebhook)
    assert decoded.data == {"x": well_formed(value)}


@given(name=CUT_TEXT, role=CUT_TEXT)
def test_half_an_emoji_in_a_known_field_is_read_as_the_replacement_character(name: str, role: str) -> None:
    raw = body(data=data(roomName='"/r"', displayName=json.dumps(name), numClientsByRoleName=json.dumps({role: 1})))
    decoded = decode(raw)
    assert isinstance(decoded, RoomClientJoined)
    assert decoded.raw == raw
    assert decoded.data.room_name == "/r"
    assert decoded.data.display_name == well_formed(name)
    assert decoded.data.num_clients_by_role_name == {well_formed(role): 1}


def test_of_duplicate_keys_the_last_wins() -> None:
    raw = (
        b'{"id":1,"id":"first","id":"last","type":"room.client.joined","type":"room.client.left",'
        b'"data":[],"data":{"roomName":null,"roomName":"/first","roomName":"/last"}}'
    )
    decoded = decode(raw)
    assert (decoded.id, decoded.type) == ("last", "room.client.left")
    assert isinstance(decoded, RoomClientLeft)
    assert decoded.data.room_name == "/last"


def test_of_duplicate_keys_the_last_wins_even_where_it_does_not_fit() -> None:
    with pytest.raises(DecodeError, match="no id"):
        decode(b'{"id":"first","id":null,"type":"room.client.joined"}')


def test_an_unknown_type_keeps_all_of_its_data() -> None:
    decoded = decode(body(type=UNKNOWN, data='{"who":{"roleName":"host"},"many":1e999,"long":' + "9" * 400 + "}"))
    assert isinstance(decoded, UnknownWebhook)
    assert str(decoded.type) == "room.client.waved"
    assert decoded.data == {"who": {"roleName": "host"}, "many": float("inf"), "long": float("inf")}


def test_the_raw_body_cannot_be_set_from_within() -> None:
    raw = body(raw='"aGVsbG8="')
    assert decode(raw).raw == raw


def test_a_stack_that_is_nearly_used_up_is_no_other_error() -> None:
    def frames_left(used: int = 0) -> int:
        try:
            return frames_left(used + 1)
        except RecursionError:
            return used

    def beneath(frames: int, raw: bytes) -> str:
        return beneath(frames - 1, raw) if frames else verdict(raw)

    raw = TAKEN["the deepest nesting the decoder takes"]
    assert beneath(frames_left() // 2, raw) == ""
    assert beneath(frames_left() - 60, raw) in ("", "the JSON is nested too deeply")


def test_a_body_without_an_id_is_known_again_by_its_bytes() -> None:
    assert identify(b"{}") == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert identify(b"{} ") != identify(b"{}")


def verdict(raw: bytes) -> str:
    """Return the reason for a refusal, `""` for a webhook."""
    try:
        decoded = decode(raw)
    except DecodeError as error:
        return str(error)
    assert decoded.raw == raw
    return ""


@given(st.binary())
def test_any_bytes_are_a_webhook_or_refused(raw: bytes) -> None:
    verdict(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KNOWN_NAMES = st.sampled_from(
    ["roomName", "subdomain", "subdoman", "roleName", "numClients", "numClientsByRoleName", "isDialIn", "metadata"]
)
FIELDS = st.dictionaries(KNOWN_NAMES | st.text(), JSON)


@given(
    envelope=st.fixed_dictionaries(
        {"id": st.just("a1") | JSON, "type": st.sampled_from(["room.client.joined", "room.new"]) | JSON},
        optional={"data": FIELDS | JSON, "createdAt": JSON | st.datetimes().map(str), "apiVersion": JSON},
    ),
    ascii_only=st.booleans(),
)
def test_any_json_is_a_webhook_or_refused(envelope: dict[str, Any], ascii_only: bool) -> None:
    raw = json.dumps(envelope, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    verdict(raw)


@given(position=st.integers(0, 600), old=st.integers(0, 4), new=st.binary(max_size=4))
def test_any_damage_to_a_real_body_is_a_webhook_or_refused(position: int, old: int, new: bytes) -> None:
    raw = webhook("room.client.joined").raw
    verdict(raw[:position] + new + raw[position + old :])


@given(fields=FIELDS)
def test_no_value_of_a_field_of_data_rejects_a_webhook_by_its_type(fields: dict[str, Any]) -> None:
    """The only reasons are what a room's name and subdomain may not hold, and what is not JSON."""
    reason = verdict(json.dumps({"id": "a1", "type": "room.client.joined", "data": fields}).encode())
    allowed = ("NUL character", "longer than 256", "not valid JSON")
    assert not reason or any(words in reason for words in allowed)
