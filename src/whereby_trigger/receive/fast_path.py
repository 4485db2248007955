"""A plain delivery and its answer on a connection of our own server, without the task and the messages of ASGI."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from msgspec import Struct

from whereby_trigger.receive.asgi import Endpoint
from whereby_trigger.receive.intake import Headers
from whereby_trigger.receive.limits import Incoming
from whereby_trigger.receive.receiver import CROWDED_OUT, OK, Answer

LARGEST = 64 * 1024
"""Bytes up to which a body may simply be gathered: beyond it the connection is read only as fast as it is stored."""


_NOBODY_WAITS = asyncio.Event()


class FastDelivery(Struct, eq=False):
    """Gather a delivery's body, have it taken, and write the answer; `answered` hears then whether it was let in.

    It stands where uvicorn has its own cycle of a request and an answer, and has what uvicorn looks at there.
    `started` is when its head was there, by time.monotonic().
    """

    endpoint: Endpoint
    headers: Headers
    length: int
    transport: asyncio.Transport
    keep_alive: bool
    answered: Callable[[bool], None]
    started: float
    body: bytes = b""
    incoming: Incoming | None = None
    disconnected: bool = False
    response_complete: bool = False
    message_event: asyncio.Event = _NOBODY_WAITS

    def gather(self, chunk: bytes) -> None:
        self.body += chunk
        if len(self.body) < self.length and not self.response_complete:
            if self.incoming is None:
                self.incoming = Incoming(self.endpoint.arriving, self._give_way)
            self.incoming.hold(len(chunk))

    def complete(self) -> None:
        """Have the delivery taken, now that all of it is there."""
        if self.incoming is not None:
            self.hang_up()
        if not self.response_complete:
            endpoint = self.endpoint
            endpoint.receiver.take(self.headers, self.body, self.started, self._answer, endpoint.path)

    def hang_up(self) -> None:
        """Count the body no more: the sender is gone, or all of it is there."""
        if self.incoming is not None:
            self.incoming.leave()
            self.incoming = None

    def _give_way(self) -> None:
        self.incoming, self.body, self.keep_alive = None, b"", False
        self.endpoint.receiver.refuse(CROWDED_OUT, self.started, self._answer, self.endpoint.path)

    def _answer(self, answer: Answer) -> None:
        self.response_complete = True
        if self.disconnected or self.transport.is_closing():
            return
        self.transport.write(OK_BYTES if answer is OK and self.keep_alive else _written(answer, self.keep_alive))
        if not self.keep_alive:
            self.transport.close()
        self.answered(answer is OK)


def _written(answer: Answer, keep_alive: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (answer.status, HTTPStatus(answer.status).phrase.encode()), b"content-length: 0"]
    lines += [b"%b: %b" % header for header in answer.headers]
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])


OK_BYTES = _written(OK, keep_alive=True)
