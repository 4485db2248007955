"""Row 20: bodies at the limit, over it, far over it, and with a wrong length."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat
from pathlib import Path

from msgspec import Struct

from reliability.measures import forget_peak, peak, resident
from reliability.receiver import SECRET
from reliability.receivers import Receivers
from reliability.row import Figures, Result
from reliability.stores import Stores, viewing
from whereby_trigger.store import Record
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

HOST = "127.0.0.1"
ANSWER_WITHIN = 8.0

LIMIT = 256 * 1024
HUGE = 100 * 1024 * 1024
PIECE = 64 * 1024
TAKEN, BAD, FORGED, TOO_LARGE, CLOSED = 200, 400, 401, 413, 0
Pieces = Iterable[bytes]
Length = Callable[[int], object]
WARM_UP = 20
AT_ONCE = 8
RSS_MAY_GROW = 8 * 1024 * 1024
MIB = 1024 * 1024


class Reply(Struct, frozen=True):
    """Hold the status, 0 if the server closed without one, and how many bytes it let us send."""

    status: int
    sent: int


async def send_raw(port: int, pieces: Iterable[bytes], *, half_close: bool = False) -> Reply:
    """Send pieces one after the other until an answer comes or the connection ends, then wait for either.

    An answer that came before the server reset the connection is still read, as a patient client would.
    """
    loop, connection = asyncio.get_running_loop(), socket.socket()
    connection.setblocking(False)
    with connection:
        await loop.sock_connect(connection, (HOST, port))
        answer = asyncio.create_task(_status(connection))
        sent = 0
        with contextlib.suppress(OSError):
            for piece in pieces:
                if answer.done():
                    break
                await loop.sock_sendall(connection, piece)
                sent += len(piece)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(ANSWER_WITHIN):
            return Reply(await answer, sent)


async def _status(connection: socket.socket) -> int:
    said = b""
    with contextlib.suppress(OSError):
        while b"\r\n" not in said:
            chunk = await asyncio.get_running_loop().sock_recv(connection, 4096)
            if not chunk:
                return CLOSED
            said += chunk
    return int(said.split()[1]) if said else CLOSED


def chunked(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """Yield pieces as the chunks of a body without a length."""
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


class Case(Struct, frozen=True):
    """Describe one request: its pieces, made from a webhook's id, and its allowed answers."""

    pieces: Callable[[str], Pieces]
    answers: tuple[int, ...]
    half_close: bool = False


def body_of(id: str, size: int = 0) -> bytes:
    """Return a webhook's body of exactly `size` bytes, or of its minimum size."""
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


async def run(folder: Path, stores: Stores) -> Result:
    """Send each request once, and the huge ones several at the same time, while watching the receiver's memory."""
    url = stores.new(folder)
    problems = list[str]()
    replies: dict[str, Reply] = {}
    async with Receivers(url, folder / "emissions") as receivers:
        receiver = await receivers.start()
        port = await receiver.listening()
        for _ in range(WARM_UP):
            await _send(port, "warm-up", CASES["the limit"])
        before = resident(receiver.pid)
        await asyncio.to_thread(forget_peak, receiver.pid)
        for name, case in CASES.items():
            replies[name] = await _send(port, name, case)
        for name, case in HUGE_CASES.items():
            crowd = await asyncio.gather(*(_send(port, name, case) for _ in range(AT_ONCE)))
            replies |= {f"{name}, {number} of {AT_ONCE} at once": reply for number, reply in enumerate(crowd)}
        grown = peak(receiver.pid) - before
        await receiver.stop()
        async with viewing(url) as view:
            problems += _wrongly_stored(await view.records())
    wrong = 0
    for name, reply in replies.items():
        must = CASES[name if name in CASES else name.rpartition(", ")[0]].answers
        if reply.status not in must:
            problems.append(f"{name}: answered {reply.status}, not {must[0]}")
            wrong += 1
    if grown > RSS_MAY_GROW:
        problems.append(f"the receiver's memory grew by {grown / MIB:.1f} MiB")
    figures: Figures = {
        "requests": len(replies),
        "answered as they must be": len(replies) - wrong,
        "RSS grew by (MiB)": round(grown / MIB, 1),
        "of 100 MiB it let in (MiB), at most": round(max(reply.sent for reply in replies.values()) / MIB, 1),
    }
    return Result(figures, problems)


async def _send(port: int, id: str, case: Case) -> Reply:
    return await send_raw(port, case.pieces(id), half_close=case.half_close)


def _wrongly_stored(records: list[Record]) -> list[str]:
    """Return which webhooks are stored though refused, missing though accepted, or incomplete."""
    stored = {record.id: record.body for record in records}
    taken = {name for name, case in CASES.items() if case.answers == (TAKEN,)}
    problems = [f"{id}: stored, but it was refused" for id in stored.keys() & CASES.keys() - taken]
    problems += [f"{id}: taken, but not stored" for id in taken - stored.keys()]
    at_limit = stored.get("the limit")
    return problems if at_limit is None or len(at_limit) == LIMIT else [*problems, "the limit: cut off"]
