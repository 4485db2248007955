"""Requests with bodies at the limit, over it, far over it, and with a length that is not theirs."""

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat

from msgspec import Struct

from reliability.raw import chunked
from reliability.receiver import SECRET
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

LIMIT = 256 * 1024
HUGE = 100 * 1024 * 1024
PIECE = 64 * 1024
TAKEN, BAD, FORGED, TOO_LARGE, CLOSED = 200, 400, 401, 413, 0

Pieces = Iterable[bytes]
Length = Callable[[int], object]


class Case(Struct, frozen=True):
    """Describe one request: its pieces, made from a webhook's id, and the answers of which it must get one."""

    pieces: Callable[[str], Pieces]
    answers: tuple[int, ...]
    half_close: bool = False


def body_of(id: str, size: int = 0) -> bytes:
    """Build a webhook whose body has exactly so many bytes, or as many as it needs."""
    bare = webhook("room.client.joined", id=id, metadata="").raw
    return bare.replace(b'"metadata":""', b'"metadata":"%b"' % (b"m" * (size - len(bare))))


def _head(body: bytes, *fields: str) -> bytes:
    signature = f"{SIGNATURE_HEADER}: {sign(SECRET, body, int(time.time()))}"
    lines = ("POST / HTTP/1.1", "Host: whereby", signature, *fields)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def _parts(body: bytes) -> Pieces:
    return (body[place : place + PIECE] for place in range(0, len(body), PIECE))


def _with_length(*lengths: Length, size: int = 0) -> Callable[[str], Pieces]:
    def pieces(id: str) -> Pieces:
        body = body_of(id, size)
        return _head(body, *(f"Content-Length: {length(len(body))}" for length in lengths)), body

    return pieces


def _in_chunks(size: int = 0, *fields: str) -> Callable[[str], Pieces]:
    def pieces(id: str) -> Pieces:
        body = body_of(id, size)
        return chain([_head(body, "Transfer-Encoding: chunked", *fields)], chunked(_parts(body)))

    return pieces


def _huge(field: str, encode: Callable[[Pieces], Pieces]) -> Callable[[str], Pieces]:
    def pieces(id: str) -> Pieces:
        return chain([_head(b"", field)], encode(repeat(b"x" * PIECE, HUGE // PIECE)))

    return pieces


def _right(size: int) -> int:
    return size


HUGE_CASES: Mapping[str, Case] = {
    "100 MiB": Case(_huge(f"Content-Length: {HUGE}", iter), (TOO_LARGE,)),
    "100 MiB in chunks": Case(_huge("Transfer-Encoding: chunked", chunked), (TOO_LARGE,)),
}

CASES: Mapping[str, Case] = {
    "the limit less one": Case(_with_length(_right, size=LIMIT - 1), (TAKEN,)),
    "the limit": Case(_with_length(_right, size=LIMIT), (TAKEN,)),
    "the limit and one": Case(_with_length(_right, size=LIMIT + 1), (TOO_LARGE,)),
    "in chunks": Case(_in_chunks(), (TAKEN,)),
    "the limit, in chunks": Case(_in_chunks(LIMIT), (TAKEN,)),
    "the limit and one, in chunks": Case(_in_chunks(LIMIT + 1), (TOO_LARGE,)),
    "a length too short": Case(_with_length(lambda size: size - 10), (FORGED, BAD)),
    "a length too long, and the end": Case(_with_length(lambda size: size + 10), (CLOSED,), half_close=True),
    "two lengths": Case(_with_length(_right, lambda size: size - 10), (BAD,)),
    "a length and chunks": Case(_in_chunks(0, "Content-Length: 10"), (BAD,)),
    "a negative length": Case(_with_length(lambda size: -size), (BAD,)),
    "a length in words": Case(_with_length(lambda size: "many"), (BAD,)),
    "a length with a sign": Case(_with_length(lambda size: f"+{size}"), (BAD,)),
    "a length over 2**64": Case(_with_length(lambda size: 2**64 + size), (BAD,)),
    **HUGE_CASES,
}
"""By name. An answer of 0 is a connection closed without one. What follows a body that is too short is another request,
which is refused: which of the two answers comes first depends on how the bytes arrive."""
