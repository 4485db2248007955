"""Requests as no decent client would send them: written as they are, while an answer is waited for."""

import asyncio
import contextlib
import socket
from collections.abc import Iterable

from msgspec import Struct

HOST = "127.0.0.1"
ANSWER_WITHIN = 8.0
CLOSED = 0


class Reply(Struct, frozen=True):
    """Hold the status, 0 where the server closed without one, and how many bytes it let us send."""

    status: int
    sent: int


async def send_raw(port: int, pieces: Iterable[bytes], *, half_close: bool = False) -> Reply:
    """Send pieces one after the other until an answer comes or the connection ends; wait for either.

    What the server had answered before it reset the connection is still read, as a patient client would.
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
    """Write pieces as the chunks of a body without a length."""
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
