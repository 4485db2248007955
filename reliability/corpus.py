"""The corpus: realistic webhooks of every kind, each with its expected outcome."""

import json
import random
from collections.abc import Iterator

from msgspec import Struct, structs

from whereby_trigger.store import State
from whereby_trigger.testing import webhook

VISIT_ROOMS = tuple(f"/visit-{number}" for number in range(12))
OTHER_ROOMS = ("/standup", "/lobby", "/möte 1")


class Item(Struct, frozen=True):
    """Describe one webhook: its body, its room, and its expected final state; a `fired` one is emitted."""

    id: str
    type: str
    room: str
    body: bytes
    state: State


def items(seed: int) -> Iterator[Item]:
    """Yield webhooks without end, the same for the same seed; those of a room belong to one meeting."""
    chance = random.Random(seed)
    while True:
        type, state, fields = chance.choice(KINDS)
        rooms = OTHER_ROOMS if state is State.SKIPPED and type == "room.session.started" else VISIT_ROOMS
        id, room = chance.randbytes(32).hex(), chance.choice(rooms)
        said = {"roomSessionId": f"the session of {room}", **fields}
        yield Item(id, type, room, webhook(type, room=room, id=id, data=said).raw, state)


def padded(item: Item, size: int) -> Item:
    """Return a webhook whose body has at least `size` bytes, by adding metadata that no predicate reads."""
    body = json.loads(item.body)
    body["data"]["metadata"] = "m" * max(0, size - len(item.body))
    return structs.replace(item, body=json.dumps(body).encode())


KINDS = (
    *[("room.client.joined", State.FIRED, {"roleName": role}) for role in ("host", "visitor", "granted_visitor")],
    ("room.client.joined", State.FIRED, {"displayName": "Zo\ud83d"}),
    ("room.client.joined", State.SKIPPED, {"roleName": "assistant"}),
    ("room.session.started", State.FIRED, {}),
    ("room.session.started", State.SKIPPED, {}),
    ("assistant.requested", State.FIRED, {}),
    ("room.client.left", State.NOTIFIED, {}),
    ("transcription.finished", State.NOTIFIED, {}),
    ("room.client.knocked", State.UNHANDLED, {}),
    ("recording.finished", State.UNHANDLED, {}),
)
"""Webhook types, the state the receiver's predicates and listeners give them, and the fields that make it so.

One name was cut in the middle of an emoji.
"""
