"""The webhooks to send: distinct and of one size, as bodies, and as signed requests prepared in a file."""

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.programs import SECRET
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

SIZE = 550
"""Bytes of a body: the size of a `room.client.joined` with a little metadata."""

ROOMS = 1000
ID_BYTES = 32
REQUEST = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s: %s\r\n\r\n%s"
)


class Body(Struct, frozen=True):
    """Hold a webhook's id and its body."""

    id: str
    body: bytes


class Requests(Struct, frozen=True):
    """Point to a file of `count` requests of `size` bytes each, one after the other."""

    path: Path
    count: int
    size: int

    def read(self) -> list[bytes]:
        """Read them."""
        data = self.path.read_bytes()
        return [data[start : start + self.size] for start in range(0, len(data), self.size)]


def bodies(rooms: int = ROOMS) -> Iterator[Body]:
    """Yield webhooks without end, room after room, each with an id that no other run repeats."""
    before_id, between, after_room = template()
    chance = random.SystemRandom()
    seeded = random.Random(chance.getrandbits(128))
    number = 0
    while True:
        id = seeded.randbytes(ID_BYTES).hex()
        room = b"/room-%06d" % (number % rooms)
        yield Body(id, before_id + id.encode() + between + room + after_room)
        number += 1


def request(body: bytes, now: float) -> bytes:
    """Return the HTTP request that delivers a body, signed at the given time."""
    signature = sign(SECRET, body, int(now)).encode()
    return REQUEST % (len(body), SIGNATURE_HEADER.encode(), signature, body)


def write_requests(path: Path, source: Iterator[Body], count: int, now: float) -> Requests:
    """Write `count` signed requests to a file, all of the same size, so a reader needs no index."""
    size = 0
    with path.open("wb") as file:
        for _ in range(count):
            size = file.write(request(next(source).body, now))
    return Requests(path, count, size)


def template() -> tuple[bytes, bytes, bytes]:
    """Return the parts of a body before its id, between that and the room's six digits with their name, and after."""
    id, room = "0" * 2 * ID_BYTES, "/room-000000"
    built = msgspec.json.decode(webhook("room.client.joined", room=room, id=id).raw)
    built["data"]["metadata"] = ""
    built["data"]["metadata"] = "m" * (SIZE - len(msgspec.json.encode(built)))
    before_id, _, rest = msgspec.json.encode(built).partition(id.encode())
    between, _, after_room = rest.partition(room.encode())
    return before_id, between, after_room
