"""A connection of a sender that measures: a request is written in one piece, and the answer's time noted on arrival."""

import asyncio
import time
from typing import cast

HOST = "127.0.0.1"
ANSWERED = b"HTTP/1.1 200 "


class NotAnswered(Exception):
    """A request was answered otherwise than with 200, or not at all."""


class Connection(asyncio.Protocol):
    """Send one request after the other; an answer is taken to be short, and to come in one piece."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[float] | None = None

    def send(self, request: bytes) -> "asyncio.Future[float]":
        """Write a request; the future holds when its answer came, by time.monotonic(), or NotAnswered."""
        assert self._transport is not None
        assert self._answer is None, "one request at a time"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by their class.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if data.startswith(ANSWERED):
            answer.set_result(now)
        else:
            answer.set_exception(NotAnswered(data.partition(b"\r\n")[0].decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NotAnswered("the connection was closed before the answer"))


async def connect(port: int) -> Connection:
    """Open a connection; raises NotAnswered where nobody takes it."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, HOST, port)
    except OSError as error:
        raise NotAnswered(f"no connection to port {port}: {error.strerror}") from error
    return connection
