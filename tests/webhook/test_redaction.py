"""Fields are removed from a body, wherever they are in it, and all else stays."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from whereby_trigger.testing import webhook
from whereby_trigger.webhook import PERSONAL, REMOVED, UNREADABLE, WEBHOOK_TYPES, decode, is_about, minimal, redacted

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
    }
    assert redacted(b"[" * 100_000, ("metadata",)) == UNREADABLE


def test_a_minimal_body_of_every_type_names_the_same_webhook() -> None:
    for type in WEBHOOK_TYPES:
        whole = webhook(type)
        left = decode(minimal(whole.raw))
        assert (left.id, left.type, left.created_at) == (whole.id, type, whole.created_at)
        assert left.data.room_name == whole.data.room_name  # type: ignore[union-attr]
        assert not any(field.encode() in minimal(whole.raw) for field in PERSONAL)


def test_a_body_is_about_whoever_a_field_names_however_it_is_written() -> None:
    assert is_about(rb'{"data": [{"externalId": "\u00e9"}]}', "externalId", "\xe9")
    assert is_about(b'{"data": {"externalId": 4711}}', "externalId", "4711")
    assert not is_about(b'{"data": {"displayName": "4711"}}', "externalId", "4711")
    assert is_about(b"half of 4711", "externalId", "4711")
