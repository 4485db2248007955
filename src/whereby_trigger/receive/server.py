"""The HTTP server: uvicorn, with an address that is bound before it starts and no say over signals."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from whereby_trigger.receive.edge import Edge, declared_length
from whereby_trigger.receive.exchange import LARGEST, Exchange

MAX_HEADERS = 64 * 1024
REQUEST_WITHIN = 10.0
"""Seconds that a request may take to arrive, from its first byte or the opening of its connection."""

LOOK_EVERY = 5
"""Ticks of uvicorn's clock, of a tenth of a second and a little, between looks for stalled requests."""

LOOK_AHEAD = 1.0
"""Seconds before its time is up that a stalled request is closed, since the next look may come too late."""

MAX_IDLE = 1000
"""Connections that may be idle at once, or half of the files that may be open where that is less.

Beyond it those that are idle for longest are closed, so that nobody keeps deliveries out by holding connections.
"""

IDLE_WITHIN = 620
"""Seconds that a connection may be idle: longer than load balancers keep theirs, 60 (AWS) to 600 (Google Cloud).

Else they send a delivery over one that is just being closed, and answer 502 for us.
"""

SHUTDOWN_WITHIN = 5.0
"""Seconds that requests get to finish at the end: more than one may wait for the store."""

App = Callable[[Any, Any, Any], Awaitable[None]]


class Protocol(HttpToolsProtocol):
    """Speak HTTP with a bound on the time and the header bytes that one request may take.

    A plain delivery goes to the edge directly: a POST to its path, with a length, while no other request is under way.
    All else goes the way of ASGI.
    """

    __slots__ = (
        "_edge",
        "_exchange",
        "_header_bytes",
        "_idle_bytes",
        "_progress",
        "awaited_since",
        "idle_since",
    )

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.awaited_since: float | None = None
        self._header_bytes = 0
        self._idle_bytes = 0
        self._progress = False
        self.idle_since: float | None = None
        self._edge = self.app if isinstance(self.app, Edge) else None
        self._exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.awaited_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.hang_up()
            # They hold each other, and many connections that end together would wait in memory for a collection.
            self._exchange = self.cycle = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.idle_since = None
        if self.awaited_since is None:
            self.awaited_since = self.loop.time()
        self._progress = False
        super().data_received(data)
        # The parser keeps a header or trailer that does not end for as long as it grows.
        self._idle_bytes = 0 if self._progress else self._idle_bytes + len(data)
        if self._idle_bytes > MAX_HEADERS:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._header_bytes = 0
        if self.awaited_since is None:
            self.awaited_since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._header_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADERS:
            raise ValueError("the headers are too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress = True
        self._exchange = self._plain_delivery()
        if self._exchange is not None:
            self.cycle = self._exchange  # type: ignore[assignment]
            return
        # What ASGI is told of a request is made up for those alone that go that way.
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers[:], self.expect_100_continue = url, headers, expects
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if self._exchange is not None:
            self._exchange.gather(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._progress = True
        self.awaited_since = None
        if self._exchange is not None:
            self._exchange.complete()
        else:
            super().on_message_complete()

    def _plain_delivery(self) -> Exchange | None:
        edge, parser = self._edge, self.parser
        if edge is None or self.url != edge.url or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.expect_100_continue or parser.should_upgrade() or self.flow.write_paused or edge.waiting.full:
            return None
        length = declared_length(self.headers)
        if length is None or length > min(LARGEST, edge.max_body):
            return None
        return Exchange(edge, self.headers, length, self.transport, parser.should_keep_alive(), self._answered)

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last:
            self.idle_since = self.loop.time()

    def close_if_stalled(self, now: float) -> None:
        """Close the connection if its request has been incomplete for too long, or there was none."""
        if self.awaited_since is not None and now - self.awaited_since > REQUEST_WITHIN - LOOK_AHEAD:
            self.transport.abort()
        elif self.idle_since is not None and now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()

    def _answered(self) -> None:
        if self.pipeline:
            self.on_response_complete()
        else:
            # Not by a timer of each connection's own, which would be set and taken back for every delivery.
            self.idle_since = self.loop.time()


def _room_for_idle_connections() -> int:
    try:
        import resource
    except ImportError:
        return MAX_IDLE
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_IDLE if files == resource.RLIM_INFINITY else min(MAX_IDLE, files // 2)


class Server(uvicorn.Server):
    """Serve an ASGI app on a socket until told to stop; signals stay with whoever runs the loop."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_WITHIN,
        )
        super().__init__(config)
        self.idle_at_most = _room_for_idle_connections()
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_EVERY == 0:
            self._close_stalled(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _close_stalled(self, now: float) -> None:
        connections = [one for one in self.server_state.connections if isinstance(one, Protocol)]
        for connection in connections:
            connection.close_if_stalled(now)
        idle = {connection: connection.idle_since for connection in connections if connection.idle_since is not None}
        for connection in sorted(idle, key=idle.__getitem__)[: max(0, len(idle) - self.idle_at_most)]:
            connection.transport.close()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._listener.getsockname()[1])

    async def open(self) -> None:
        """Begin to answer requests."""
        self._serving = asyncio.create_task(self.serve([self._listener]), name="whereby-trigger-server")

    async def close(self, within: float = SHUTDOWN_WITHIN) -> None:
        """Stop listening, let running requests finish, and hang up on those that have not after `within` seconds."""
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
        # uvicorn would cancel what serves them, and answer 500 with a traceback in the log.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
