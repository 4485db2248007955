"""The HTTP server: uvicorn on a socket that is already bound, without its signal handlers."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from whereby_trigger.receive.address import BACKLOG, keep_from_forks
from whereby_trigger.receive.asgi import LET_IN, Endpoint
from whereby_trigger.receive.connections import LARGEST, Connections, FastDelivery, Flow
from whereby_trigger.receive.intake import OWS, declared_length
from whereby_trigger.store import RefusalReason

MAX_HEADERS, MAX_FIELDS = 64 * 1024, 1000
END_OF_HEAD = b"\r\n\r\n"

REQUEST_WITHIN = 10.0
"""Seconds that a request may take to arrive, from its first byte or the opening of its connection."""

TAKEN_WITHIN = 10.0
"""Seconds within which a client must read its answers."""

UNSENT = 4096
"""Bytes of unread answers above which no more requests of a client are read."""

PIECES, LINES = 8, 32
"""Pieces of one request that are parsed in a turn of the loop, and lines in a piece, unless it is a body with a length.

A head has a line for each header, and a body in chunks two for each chunk: it may be made of thousands.
"""

LOOK_EVERY = 5
"""Ticks of uvicorn's clock, a little over 0.1 s each, between looks for stalled requests."""

LOOK_AHEAD = 1.0
"""Seconds before its limit that a stalled request is closed, because the next look may come too late."""

IDLE_WITHIN = 620
"""Seconds that a connection may be idle: longer than load balancers keep theirs, 60 (AWS) to 600 (Google Cloud).

Otherwise they send a delivery over a connection that is closing, and answer 502 for us.
"""

SHUTDOWN_WITHIN = 3.0
"""Seconds that requests have to finish at shutdown; longer than one waits for the store."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class Protocol(HttpToolsProtocol):
    """Speak HTTP within limits on the time, the header bytes and the memory of one connection.

    The parser gets one request at a time: pipelined bytes stay unparsed, and reading pauses. A plain delivery, which
    is a POST to the endpoint's path with a length, goes to the endpoint directly. All other requests go through ASGI,
    and take turns before that, but for a delivery of any kind on a connection that has brought one before.
    """

    __slots__ = (
        "_ahead",
        "_body_left",
        "_complete",
        "_connections",
        "_endpoint",
        "_fast",
        "_header_bytes",
        "_idle_bytes",
        "_in_head",
        "_method",
        "_offer",
        "_posted",
        "_progress",
        "_tail",
        "_unsent_since",
        "awaited_since",
        "idle_since",
        "is_known",
    )

    flow: Flow

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # uvicorn has a setting for it, which turns off the access log of the whole process.
        self.access_log = False
        self.awaited_since: float | None = None
        self.idle_since: float | None = None
        self._endpoint = self.app if isinstance(self.app, Endpoint) else None
        self._posted = () if self._endpoint is None else self._endpoint.posted
        self._fast: FastDelivery | None = None
        self._connections = self.server_state if isinstance(self.server_state, Connections) else Connections()
        self._header_bytes = self._idle_bytes = self._body_left = 0
        self._progress = self._offer = False
        self._method = b""
        self._in_head = self._complete = True
        # The last bytes that were parsed: the end of a head may begin in them.
        self._tail = b""
        self._ahead = b""
        # Once a delivery of it was let in.
        self.is_known = False
        self._unsent_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connections.connections.add(self)
        self.transport, self.flow, self.scheme = transport, Flow(transport), "http"
        if self._endpoint is None:
            # The endpoint needs no addresses, which are six calls to the kernel.
            self.server, self.client = get_local_addr(transport), get_remote_addr(transport)
        transport.set_write_buffer_limits(high=UNSENT)
        self.awaited_since = self.loop.time()
        if len(self._connections.connections) > self._connections.ceiling:
            self._connections.close_surplus_soon(self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._take_ahead()
        if self._fast is not None:
            self._fast.hang_up()
            # Break the reference cycle: otherwise ended connections stay in memory until a garbage collection.
            self._fast = self.cycle = None  # type: ignore[assignment]

    def data_received(self, data: bytes, its_turn: bool = False) -> None:
        if self._ahead or self._must_wait:
            self._hold(data)
            return
        at_once = its_turn or (self.is_known and (not self._complete or data.startswith(self._posted)))
        if not at_once and self._waits_its_turn(data):
            self._hold(data)
            self._connections.take_turn(self)
            return
        self.idle_since = None
        if self.awaited_since is None:
            self.awaited_since = self.loop.time()
        self._feed(data)

    def _waits_its_turn(self, data: bytes) -> bool:
        """True unless bytes begin a delivery or have a known length, or may be a delivery's and find no room."""
        if self._body_left or (self._complete and self._endpoint is not None and self._endpoint.begins_delivery(data)):
            return False
        may_deliver = not self._complete or data.startswith(self._posted)
        return not may_deliver or self._connections.has_room(len(data), len(data))

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._ahead:
            self._connections.go_on_later(self)

    @property
    def _must_wait(self) -> bool:
        """True while the next request must wait: for an answer, or for the client to read its answers."""
        if not self._complete:
            return False
        return (self.cycle is not None and not self.cycle.response_complete) or self.flow.write_paused

    def _feed(self, data: bytes) -> None:
        """Parse the bytes of one request, or PIECES of them, and hold the rest."""
        start, size, pieces = 0, len(data), 0
        while start < size and pieces < PIECES:
            end = min(size, start + self._body_left) if self._body_left else self._end_of_head(data, start, size)
            if not self._parse(data[start:end]):
                return
            start, pieces = end, pieces + 1
            if self._complete and self._progress:
                break
        if start < size:
            self._hold(data[start:])
            if not self._must_wait:
                self._connections.go_on_later(self)

    def _end_of_head(self, data: bytes, start: int, size: int) -> int:
        """Return the index up to which the bytes can only belong to one request, which announced no length so far.

        It ends after its head, or after the empty line that follows its chunks. After LINES lines, the index is there.
        """
        if self._tail:
            seam = (self._tail + data[start : start + 3]).find(END_OF_HEAD)
            if seam >= 0:
                return start + seam + len(END_OF_HEAD) - len(self._tail)
        found = data.find(END_OF_HEAD, start)
        end = size if found < 0 else found + len(END_OF_HEAD)
        # To count the lines of much would take as long as to parse them.
        if end - start > 1024 or data.count(b"\n", start, end) > LINES:
            lines = data[start:end].split(b"\n", LINES)
            end -= len(lines[-1]) if len(lines) > LINES else 0
        return end

    def _parse(self, piece: bytes) -> bool:
        """Parse some bytes; return False if that ends the connection."""
        self._progress = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return self._offer and self._parse_without_the_offer()
        except httptools.HttpParserError:
            self._refuse()
            return False
        self._tail = b"" if self._complete or self._body_left else (self._tail + piece)[-3:]
        # The parser keeps an endless header or trailer in memory.
        self._idle_bytes = 0 if self._progress else self._idle_bytes + len(piece)
        if self._idle_bytes > MAX_HEADERS:
            self._connections.refused(RefusalReason.HEADERS_TOO_LARGE, 1)
            self.transport.abort()
        return not self.transport.is_closing()

    def _parse_without_the_offer(self) -> bool:
        """Parse the head again without its offer to upgrade to another protocol, which a server may ignore.

        The parser would treat the body as that protocol. Source: RFC 9110, 7.8.
        """
        self._offer = False
        start = b"%b %b HTTP/%b\r\n" % (self._method, self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return self._parse(b"%b%b\r\n" % (start, b"".join(fields)))

    def _refuse(self) -> None:
        self._connections.refused(RefusalReason.INVALID_HTTP, 1)
        self.send_400_response("Invalid HTTP request received.")

    def _hold(self, data: bytes) -> None:
        """Hold bytes until the answer before them is given or their turn has come, and pause reading."""
        if self._complete and self.cycle is not None and not self.cycle.keep_alive:
            return
        self._ahead += data
        if not self._connections.hold(len(data), len(self._ahead)):
            self._connections.note_closed(1)
            self.transport.abort()
        elif not self.transport.is_closing():
            self.flow.ahead = True
            self.flow.pause_reading()

    def _take_ahead(self) -> bytes:
        data, self._ahead = self._ahead, b""
        self._connections.ahead -= len(data)
        return data

    def go_on(self) -> bool:
        """Continue with the bytes that are held; return False if there is nothing to do."""
        if self.transport.is_closing() or self._must_wait or not self._ahead:
            return False
        self.flow.ahead = False
        self.data_received(self._take_ahead(), its_turn=True)
        if not self.transport.is_closing():
            # Once the request's task has begun: a client that ended its side after its request is answered before that
            # is read, and its connection closed.
            self.loop.call_soon(self.flow.resume_reading)
        return True

    def shutdown(self) -> None:
        """Close the connection, after the answer to what came before: it may be held until its turn."""
        self.go_on()
        super().shutdown()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._header_bytes = 0
        self._in_head = True
        self._complete = False
        if self.awaited_since is None:
            self.awaited_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADERS or len(self.headers) == MAX_FIELDS:
            raise ValueError("the headers are too large")
        # A trailer is not a header and must not count as one. Source: RFC 9110, 6.5.1.
        if self._in_head:
            name, value = name.lower(), value.strip(OWS)
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._progress = True
        self._in_head = False
        self._method = self.parser.get_method()
        if self.parser.should_upgrade():
            if self._method == b"CONNECT":
                raise ValueError("this server is not a proxy")
            self._offer = True
            return
        length = declared_length(self.headers)
        self._body_left = length or 0
        self._fast = self._plain_delivery(length)
        if self._fast is not None:
            self.cycle = self._fast  # type: ignore[assignment]
            return
        # Only requests that go through ASGI need a scope, which super() builds.
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers[:], self.expect_100_continue = url, headers, expects
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress = True
        self._body_left = max(0, self._body_left - len(body))
        if self._fast is not None:
            self._fast.gather(body)
        elif self._endpoint is None or self._method == b"POST":
            # The endpoint reads no other.
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        if self._offer:
            return
        self._complete = True
        self.awaited_since = None
        if self._fast is not None:
            self._fast.complete()
        else:
            super().on_message_complete()
            if self.cycle.response_complete:
                # Refused by its head.
                self._answered(False)

    def _plain_delivery(self, length: int | None) -> FastDelivery | None:
        endpoint, parser = self._endpoint, self.parser
        if (
            endpoint is None
            or self.url != endpoint.url
            or self._method != b"POST"
            or parser.get_http_version() != "1.1"
        ):
            return None
        if (
            length is None
            or length > min(LARGEST, endpoint.max_body)
            or self.expect_100_continue
            or endpoint.in_flight.full
        ):
            return None
        keep_alive, began = parser.should_keep_alive(), time.monotonic()
        return FastDelivery(endpoint, self.headers, length, self.transport, keep_alive, self._answered, began)

    def on_response_complete(self) -> None:
        """Do after an answer through ASGI what we do after one of our own.

        uvicorn's own pipeline is not used, nor its timer for each connection.
        """
        self.cycle.body.clear()
        self._answered(self.cycle.scope.get(LET_IN, False) is True)

    def _answered(self, let_in: bool) -> None:
        """Continue with the pipelined bytes."""
        self.is_known = self.is_known or let_in
        if self._complete:
            # Otherwise its headers and its body stay in memory until the next request, however long that takes.
            self._fast = self.cycle = self.scope = None  # type: ignore[assignment]
            self.url, self.headers = b"", []
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._ahead:
            self._connections.go_on_later(self)
        else:
            self.idle_since = self.loop.time()

    def close_if_stalled(self, now: float) -> None:
        """Close the connection if its request is late, if it is idle, or if its client does not read its answers.

        `now` is the time of the loop's clock, in seconds.
        """
        if not self.transport.get_write_buffer_size():
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        elif now - self._unsent_since > TAKEN_WITHIN - LOOK_AHEAD:
            self.transport.abort()
            return
        if self.awaited_since is not None and now - self.awaited_since > REQUEST_WITHIN - LOOK_AHEAD:
            # A connection on which nothing has come brings no delivery: load balancers open some ahead.
            if not self._complete:
                self._connections.refused(RefusalReason.STALLED, 1)
            self.transport.abort()
        elif self.idle_since is not None and now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()

    @property
    def is_served(self) -> bool:
        """True while a delivery of this connection waits for the store."""
        waits = self.cycle is not None and not self.cycle.response_complete
        return waits and self._complete and self._method == b"POST"

    @property
    def usefulness(self) -> tuple[bool, float]:
        """A rank: the connection with the lowest is closed first."""
        since = self.awaited_since if self.idle_since is None else self.idle_since
        return self.is_known, 0.0 if since is None else since

    def give_way(self) -> None:
        """Close the connection to make room for another."""
        if self.idle_since is None:
            self.transport.abort()
        else:
            self.transport.close()


class Server(uvicorn.Server):
    """Serve an ASGI app on a bound socket until `close`; leaves signals alone."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_WITHIN,
            backlog=BACKLOG,
        )
        super().__init__(config)
        self.connections = Connections(app.unread) if isinstance(app, Endpoint) else Connections(beside=True)
        self.server_state = self.connections
        self._listener = listener
        keep_from_forks(self)
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            now = asyncio.get_running_loop().time()
            for connection in self.connections.all:
                connection.close_if_stalled(now)
        self.connections.close_surplus()
        return await super().on_tick(counter)

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self._listener.getsockname()[1])

    async def open(self) -> None:
        """Start to answer requests."""
        self._serving = asyncio.create_task(self.serve([self._listener]), name="whereby-trigger-server")

    async def close(self, within: float = SHUTDOWN_WITHIN) -> None:
        """Stop listening, let requests finish for `within` seconds, then close the connections of the others."""
        self.should_exit = True
        if self._serving is None:
            self._listener.close()
            return
        try:
            await asyncio.wait({self._serving}, timeout=within)
        finally:
            self._hang_up()
        await self._serving

    def _hang_up(self) -> None:
        # uvicorn would cancel their tasks, answer 500 and log a traceback.
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def descriptors(self) -> Iterator[int]:
        """Yield the file descriptors of the listening socket and of every connection."""
        yield self._listener.fileno()
        for connection in self.connections.all:
            yield connection.transport.get_extra_info("socket").fileno()
