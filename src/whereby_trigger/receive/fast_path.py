"""A plain delivery and its answer on a connection of our own server, without the task and the messages of ASGI."""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

from whereby_trigger.receive.asgi import Endpoint
from whereby_trigger.receive.intake import Headers
from whereby_trigger.receive.limits import Incoming
from whereby_trigger.receive.receiver import CROWDED_OUT, OK, Answer

LARGEST = 64 * 1024
"""Bytes up to which a body may simply be gathered: beyond it the connection is read only as fast as it is stored."""


class FastDelivery:
    """Gather a delivery's body, have it taken, and write the answer.

    It stands where uvicorn has its own cycle of a request and an answer, and has what uvicorn looks at there.
    """

    __slots__ = (
        "_answered",
        "_body",
        "_endpoint",
        "_headers",
        "_incoming",
        "_length",
        "_started",
        "_transport",
        "disconnected",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        headers: Headers,
        length: int,
        transport: asyncio.Transport,
        keep_alive: bool,
        answered: Callable[[bool], None],
    ) -> None:
        self._started = time.monotonic()
        self._endpoint = endpoint
        self._headers = headers
        self._transport = transport
        self._answered = answered
        self._length = length
        self._body = b""
        self._incoming: Incoming | None = None
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NOBODY_WAITS

    def gather(self, chunk: bytes) -> None:
        self._body += chunk
        if len(self._body) < self._length and not self.response_complete:
            if self._incoming is None:
                self._incoming = Incoming(self._endpoint.arriving, self._give_way)
            self._incoming.hold(len(chunk))

    def complete(self) -> None:
        """Have the delivery taken, now that all of it is there."""
        if self._incoming is not None:
            self.hang_up()
        if not self.response_complete:
            endpoint = self._endpoint
            endpoint.receiver.take(self._headers, self._body, self._started, self._answer, endpoint.path)

    def hang_up(self) -> None:
        """Count the body no more: the sender is gone, or all of it is there."""
        if self._incoming is not None:
            self._incoming.leave()
            self._incoming = None

    def _give_way(self) -> None:
        self._incoming, self._body, self.keep_alive = None, b"", False
        self._endpoint.receiver.refuse(CROWDED_OUT, self._started, self._answer, self._endpoint.path)

    def _answer(self, answer: Answer) -> None:
        self.response_complete = True
        if self.disconnected or self._transport.is_closing():
            return
        self._transport.write(OK_BYTES if answer is OK and self.keep_alive else _written(answer, self.keep_alive))
        if not self.keep_alive:
            self._transport.close()
        self._answered(answer is OK)


def _written(answer: Answer, keep_alive: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (answer.status, HTTPStatus(answer.status).phrase.encode()), b"content-length: 0"]
    lines += [b"%b: %b" % header for header in answer.headers]
    if not keep_alive:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", b""])


OK_BYTES = _written(OK, keep_alive=True)

_NOBODY_WAITS = asyncio.Event()
