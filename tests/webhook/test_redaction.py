"""Fields are removed from a body, wherever they are in it, and everything else stays."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.testing import webhook
from whereby_trigger.webhook import (
    PERSONAL,
    REMOVED,
    UNREADABLE,
    WEBHOOK_TYPES,
    decode,
    forgotten,
    is_about,
    is_redacted,
    masked,
    minimal,
    redacted,
    values_of,
)

MARK = "a mark that nothing else holds"
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PERSONAL, "a", "b"]), inner, max_size=3)
    ),
    max_leaves=20,
)


def marked(value: Any) -> Any:
    """Return a document with MARK in each personal field that has a value."""
    if isinstance(value, dict):
        return {key: MARK if key in PERSONAL else marked(inner) for key, inner in value.items()}
    return [marked(inner) for inner in value] if isinstance(value, list) else value


def unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: REMOVED if key in PERSONAL else unmarked(inner) for key, inner in value.items()}
    return [unmarked(inner) for inner in value] if isinstance(value, list) else value


@given(anything)
def test_every_value_of_the_fields_goes_and_all_else_stays(document: Any) -> None:
    body = json.dumps(marked(document)).encode()
    left = redacted(body, PERSONAL)
    assert MARK.encode() not in left
    assert json.loads(left) == unmarked(document)
    assert redacted(body, ()) is body


@given(st.binary() | anything.map(lambda document: (json.dumps(marked(document)) + "}").encode()))
def test_a_body_that_cannot_be_read_is_replaced_whole(body: bytes) -> None:
    assert MARK.encode() not in redacted(body, ("displayName", *PERSONAL))


def test_only_the_fields_that_are_named_go() -> None:
    body = b'{"data": {"displayName": "Ada", "metadata": null, "externalId": "", "participantId": 7, "n": [1.50]}}'
    left = json.loads(redacted(body, ("displayName", "metadata", "externalId")))
    fields = {"displayName": REMOVED, "metadata": None, "externalId": "", "participantId": 7, "n": [1.5]}
    assert left == {"data": fields}


def test_half_an_emoji_and_the_last_of_two_keys_are_read_as_whereby_wrote_them() -> None:
    body = rb'{"data": {"displayName": "Ada", "displayName": "Bob", "roomName": "/\ud83d"}}'
    assert redacted(body, ("displayName",)) == rb'{"data":{"displayName":"[[removed]]","roomName":"/\ud83d"}}'


def test_what_cannot_be_written_again_leaves_only_which_webhook_it_is() -> None:
    data = b'"roomName": "/r", "displayName": "Ada", "n": 1e999, "numClients": ' + b"9" * 5000
    body = b'{"id": "x", "type": "room.client.joined", "data": {' + data + b"}}"
    assert json.loads(redacted(body, ("metadata",))) == {
        "id": "x",
        "type": "room.client.joined",
        "data": {"roomName": "/r"},
        "rest": REMOVED,
    }
    assert redacted(b"[" * 100_000, ("metadata",)) == UNREADABLE


def test_a_forgotten_body_of_every_type_names_the_same_webhook_and_nobody() -> None:
    for type in WEBHOOK_TYPES:
        whole = webhook(type)
        for left in (forgotten(whole.raw), minimal(whole.raw)):
            same = decode(left)
            assert (same.id, same.type, same.created_at) == (whole.id, type, whole.created_at)
            assert same.data.room_name == whole.data.room_name  # type: ignore[union-attr]
            values = {str(value) for field in PERSONAL for value in values_of(whole.raw, field)}
            assert not any(value.encode() in left for value in values if value not in ("", "True"))
        assert count_of(decode(forgotten(whole.raw))) == count_of(whole)


def count_of(webhook: Any) -> Any:
    return getattr(webhook.data, "num_clients", None), getattr(webhook.data, "role_name", None)


@given(anything)
def test_what_whereby_adds_tomorrow_is_forgotten_too(document: Any) -> None:
    body = json.dumps({"type": "room.client.waved", "data": {"whoItIs": MARK, "roomName": "/r", "more": document}})
    left = forgotten(body.encode())
    assert MARK.encode() not in left
    assert b'"/r"' in left


@given(anything)
def test_only_what_was_removed_here_makes_a_body_redacted(document: Any) -> None:
    body = json.dumps(marked(document)).encode()
    assert is_redacted(redacted(body, PERSONAL)) == (MARK.encode() in body)
    assert not is_redacted(body)


def test_a_name_that_whereby_left_out_is_not_one_that_was_removed_here() -> None:
    body = webhook("room.client.joined", data={"displayName": "[[redacted]]"}).raw
    assert not is_redacted(body)
    assert not is_redacted(b'{"displayName": "[[removed]]')
    assert is_redacted(minimal(b"no JSON"))


def test_a_body_is_about_whoever_a_field_names_however_it_is_written() -> None:
    assert is_about(rb'{"data": [{"externalId": "\u00e9"}]}', "externalId", "\xe9")
    assert is_about(rb'{"data": {"externalId": "\u0070-1"}}', "externalId", "p-1")
    assert is_about(b'{"data": {"externalId": 4711}}', "externalId", "4711")
    assert not is_about(b'{"data": {"displayName": "4711"}}', "externalId", "4711")
    assert is_about(b'{"externalId": "p-1", "externalId": "p-2"}', "externalId", "p-1")


@pytest.mark.parametrize("body", [b'{"a": [{"participantId": "p-20"}]}', b'{"participantId": "p-20"'])
@pytest.mark.parametrize("count", [0, 1, 5, 21])
def test_a_body_is_about_any_of_many(body: bytes, count: int) -> None:
    assert is_about(body, "participantId", *(f"p-{n}" for n in range(100, 100 + count))) is False
    assert is_about(body, "participantId", *(f"p-{n}" for n in range(20, 20 + count))) is (count > 0)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_body_that_cannot_be_read_is_about_whoever_it_holds(encoding: str, cut: int) -> None:
    body = '{"externalId": "é-4711"}'.encode(encoding)
    assert is_about(body[: len(body) - cut], "externalId", "é-4711")
    assert not is_about(body[: len(body) - cut], "externalId", "é-4712")
    assert is_about(rb'{"externalId": "\u00E9-4711"', "externalId", "é-4711")


def test_a_text_where_an_object_belongs_is_forgotten_and_masked() -> None:
    odd = {"type": "x", "data": "Ada Byron"}
    assert json.loads(forgotten(json.dumps(odd).encode())) == {"type": "x", "data": REMOVED}
    assert masked({"data": {"numClientsByRoleName": "Ada Byron"}}, "mask") == {"data": {"numClientsByRoleName": "mask"}}


@pytest.mark.parametrize("written", [rb"clinic\/4711", rb"clinic\u002f4711", rb"clinic/4711"])
def test_a_slash_however_it_is_escaped_names_whom_a_broken_body_is_about(written: bytes) -> None:
    assert is_about(b'{"externalId": "' + written, "externalId", "clinic/4711")
    assert is_about(b'{"externalId": "say \\"hi\\"", "a', "externalId", 'say "hi"')


@given(st.text(min_size=1).filter(str.isprintable))
def test_whoever_a_body_is_about_is_nowhere_in_the_body_that_is_left(value: str) -> None:
    body = webhook("room.client.joined", data={"externalId": value, "displayName": value, "metadata": value}).raw
    assert is_about(body, "externalId", value)
    for left in (forgotten(body), redacted(body, PERSONAL), minimal(body)):
        assert not is_about(left, "externalId", value) or value == REMOVED
