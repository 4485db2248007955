"""What all connections of our own server share, and a plain delivery on one of them.

They share their limits, which of them close first, and whose turn is next. A plain delivery is read and answered
without the task and the messages of ASGI.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, cast

from msgspec import Struct
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from whereby_trigger.loggers import own_logger
from whereby_trigger.receive.asgi import Endpoint
from whereby_trigger.receive.intake import Headers
from whereby_trigger.receive.receiver import CROWDED_OUT, OK, Answer, Incoming
from whereby_trigger.store import RefusalReason

logger = own_logger("whereby_trigger")

STRANGERS_A_TURN = 8
"""Connections that one turn lets continue: those that have brought no delivery yet, or ask for something else now."""

REST, LONGEST_REST = 0.001, 0.25
"""Seconds, at least and at most, between two such turns: as long as the last one took. One may have seemed to take
minutes, because the process was frozen.

Meanwhile the loop waits, and other threads run: the store's and the user's. Beside a loop that never waits, Python lets
a thread run only every few milliseconds, and a commit needs that about 20 times.
"""

MAX_AHEAD = 4 * 1024 * 1024
"""Bytes that all connections together may hold until it is their turn: pipelined requests, above all."""

FEW_AHEAD = 2048
"""Bytes that a connection may hold however much others do: a health check, or a small delivery in chunks."""

MAX_CONNECTIONS = 2048
"""Connections that may be open at once, or half of the files that may be open if that is less.

Above it, the connections that have been useless for longest are closed: holding connections must not keep deliveries
out. Those that have brought a delivery are closed last.
"""

MAX_BESIDE = 256
"""The same for a port that takes no deliveries, or an eighth of the files: others may fill it, too."""

SAY_EVERY = 30.0
"""Seconds between two log lines about connections that were closed because there were too many."""


class Connection(Protocol):
    """What `Connections` needs of one connection."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    is_known: bool

    @property
    def is_served(self) -> bool: ...

    @property
    def usefulness(self) -> tuple[bool, float]: ...

    def give_way(self) -> None: ...

    def go_on(self) -> bool: ...

    def close_if_stalled(self, now: float) -> None: ...


Refused = Callable[[RefusalReason, int], None]
"""Called with why requests were refused, or connections closed, before anything of them was read as a delivery."""


def count_none(reason: RefusalReason, count: int) -> None:
    """Count nothing, for a server that takes no deliveries."""


class Flow(FlowControl):
    """Keep reading paused while a client with pipelined requests waits for an answer."""

    ahead = False

    def resume_reading(self) -> None:
        if not self.ahead:
            super().resume_reading()


class Connections(ServerState):
    """Hold the open connections, their limit, and `ahead`, the bytes that all of them hold until their turn."""

    def __init__(self, refused: Refused = count_none, *, beside: bool = False) -> None:
        super().__init__()
        self.refused = refused
        self.ahead = 0
        self.max_connections = _max_connections(MAX_BESIDE, 8) if beside else _max_connections(MAX_CONNECTIONS, 2)
        # In the order of their turns; none of them twice.
        self._strangers: OrderedDict[Connection, None] = OrderedDict()
        self._turn_comes = False
        self._closing_soon = False
        self._closed = 0
        self._said = float("-inf")

    @property
    def all(self) -> list[Connection]:
        """The connections that are open."""
        return list(cast(set[Connection], self.connections))

    @property
    def ceiling(self) -> int:
        """Connections above which the surplus is closed in this turn of the loop, not at the next look."""
        return self.max_connections * 3 // 2

    def has_room(self, more: int, all_of_it: int) -> bool:
        """Return True if a connection may hold `more` bytes, and so `all_of_it`."""
        return self.ahead + more <= MAX_AHEAD or all_of_it <= FEW_AHEAD

    def hold(self, more: int, all_of_it: int) -> bool:
        """Count `more` bytes that a connection holds, `all_of_it` by now; return False if that is too much."""
        has_room = self.has_room(more, all_of_it)
        self.ahead += more
        return has_room

    def go_on_later(self, connection: Connection) -> None:
        """Schedule a connection to continue with the bytes that it holds: soon if it is known, or else in its turn."""
        if not connection.is_known:
            self.take_turn(connection)
        elif not connection.transport.is_closing():
            connection.loop.call_soon(connection.go_on)

    def take_turn(self, connection: Connection) -> None:
        """Schedule a connection to continue in its turn, even if it is known: anybody's requests come by a proxy."""
        if connection.transport.is_closing():
            return
        self._strangers.setdefault(connection)
        if not self._turn_comes:
            self._turn_comes = True
            connection.loop.call_soon(self._let_strangers_go_on, connection.loop)

    def _let_strangers_go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        began, went_on = time.monotonic(), 0
        try:
            # One that has yet more to do is at the end again: its next turn is not this one.
            for _ in range(len(self._strangers)):
                stranger, _ = self._strangers.popitem(last=False)
                went_on += stranger.go_on()
                if went_on == STRANGERS_A_TURN:
                    break
        finally:
            # After an error, too, such as a lack of memory: nobody else would let the others go on.
            self._turn_comes = went_on > 0 or len(self._strangers) > 0
            if self._turn_comes:
                rest = min(LONGEST_REST, max(REST, time.monotonic() - began))
                loop.call_later(rest, self._let_strangers_go_on, loop)

    def close_surplus_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the surplus once the connections that came together are all there: each look is at all of them."""
        if not self._closing_soon:
            self._closing_soon = True
            loop.call_soon(self.close_surplus)

    def close_surplus(self) -> None:
        """Close the connections above the limit, the ones that have been useless for longest first."""
        self._closing_soon = False
        if len(self.connections) <= self.max_connections:
            return
        live = [one for one in self.all if not one.transport.is_closing()]
        surplus = max(0, len(live) - self.max_connections)
        candidates = sorted((one for one in live if not one.is_served), key=lambda one: one.usefulness)[:surplus]
        for connection in candidates:
            connection.give_way()
        self.note_closed(len(candidates))

    def note_closed(self, count: int) -> None:
        """Count connections that were closed to make room, and log the count now and then."""
        self._closed += count
        if count:
            self.refused(RefusalReason.TOO_MANY_CONNECTIONS, count)
        now = time.monotonic()
        if self._closed and now - self._said >= SAY_EVERY:
            logger.warning(
                "closed %d connections that brought nothing, to make room for deliveries: at most %d stay open; "
                "if they are not yours, keep them out with a firewall or proxy",
                self._closed,
                self.max_connections,
            )
            self._closed, self._said = 0, now


def _max_connections(most: int, part: int) -> int:
    """Return how many connections may be open: `most`, or one `part` of the files that may be open if that is less."""
    try:
        import resource
    except ImportError:
        return most
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else min(most, files // part)


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
