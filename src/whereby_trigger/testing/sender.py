"""Send deliveries as Whereby sends them; what simulates, demonstrates and measures the package sends with this.

Whereby waits 5 seconds for an answer, and sends a delivery up to twice more after a 5xx or no answer in time, but not
after a 4xx. What it does if the connection is refused or lost is not documented; it is not retried here, unless a
proxy is said to stand between. Source: Whereby docs, Failed delivery.
"""

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import httptools
from msgspec import Struct

from whereby_trigger.threads import shortage_of
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

ANSWER_WITHIN: Final = 5.0
"""Seconds that Whereby waits for an answer. Source: Whereby docs, Failed delivery."""

RETRIES: Final = 2
"""How often Whereby sends a delivery again. Source: Whereby docs, Failed delivery."""

BACKOFF: Final = 0.1
"""Seconds before the first retry; the second waits twice as long. Whereby says only that it is short."""

IDLE: Final = 2.0
"""Seconds for which a connection is kept for another request; servers close idle ones later than that."""

NO_ANSWER, BAD_GATEWAY, TIMED_OUT = 0, 502, 504
"""What counts as the status of a request whose connection failed, without a proxy and behind one, and of one that was
not answered in time."""

Host = tuple[str, int]
T = TypeVar("T")


class Address(Struct, frozen=True):
    """Describe where to post to: hosts that serve the same, tried in turn, and the request's target.

    If they are the addresses of `one_name`, a request passes over those that no connection can be made to.
    """

    hosts: tuple[Host, ...]
    name: str
    target: str
    tls: bool = False
    one_name: bool = True

    @classmethod
    def local(cls, *ports: int) -> "Address":
        """Return the address of servers on ports of this machine."""
        return cls(tuple(("127.0.0.1", port) for port in ports), "127.0.0.1", "/", one_name=False)


class Response(Struct, frozen=True):
    """Describe the answer to one request: its status, after how many seconds it came, and the words of its status line.

    `sent_at` is when the request was begun, by the monotonic clock. The status is 504 if no answer came in time, and 0
    if the connection failed, or 502 behind a proxy; then it is `missing`, and `reason` says what happened.
    """

    status: int
    seconds: float
    sent_at: float = 0.0
    reason: str = ""
    missing: bool = False

    @property
    def is_retried(self) -> bool:
        """True if Whereby would send the delivery again."""
        return self.status >= 500


class Sender:
    """Post deliveries as Whereby does, over connections that are used again unless `reuse` is False.

    Each request, a retry too, goes to the next host of `address`, which may be changed at any time. Without a secret,
    nothing is signed. `proxied` says that a proxy stands between, which answers 502 if a connection fails, so that the
    delivery is retried.
    """

    def __init__(
        self,
        address: Address,
        secret: str | None,
        *,
        proxied: bool = False,
        reuse: bool = True,
        answer_within: float = ANSWER_WITHIN,
    ) -> None:
        self.address = address
        self._secret = secret
        self._proxied = proxied
        self._reuse = reuse
        self._answer_within = answer_within
        self.short = ""
        """What this process was out of for a request, which then failed without being sent; "" if for none."""

        self._connections: set[_Connection] = set()
        self._idle: defaultdict[Host, list[_Connection]] = defaultdict(list)
        self._next = 0
        self._ssl = ssl.create_default_context() if address.tls else None

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return sum(not connection.lost for connection in self._connections)

    async def deliver(
        self,
        body: bytes,
        *,
        forged: bool = False,
        ahead: float = 0.0,
        retries: int = RETRIES,
        noted: Callable[[Response], None] = lambda _: None,
    ) -> list[Response]:
        """Deliver a body, with retries; return all answers, the final one last.

        A forged one has a wrong signature; `ahead` is by how many seconds the clock that signs is fast. `noted` is
        called with each answer as it comes.
        """
        answers: list[Response] = []
        while not answers or (answers[-1].is_retried and len(answers) <= retries):
            if answers:
                await asyncio.sleep(BACKOFF * 2 ** (len(answers) - 1))
            answers.append(await self.send(self._delivery(body, forged, ahead)))
            noted(answers[-1])
        return answers

    async def get(self, target: str) -> Response:
        """Get a path, such as /readyz."""
        return await self.send(self._request("GET", target, {}))

    async def send(self, request: bytes) -> Response:
        """Send a request that is written out already, and return its answer."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._answer_within):
                status, reason, arrived = await self._ask(request)
        except TimeoutError:
            reason = f"no answer within {self._answer_within:g} s"
            return Response(TIMED_OUT, time.monotonic() - began, began, reason, missing=True)
        except OSError as error:
            self.short = shortage_of(error) or self.short
            status = BAD_GATEWAY if self._proxied else NO_ANSWER
            reason = error.strerror or str(error)
            return Response(status, time.monotonic() - began, began, reason, missing=True)
        return Response(status, arrived - began, began, reason)

    async def connect(self, count: int) -> None:
        """Open so many connections for the requests that follow. Raises OSError."""
        for _ in range(count):
            host = self._next_hosts()[0]
            self._idle[host].append(await self._connect(host))

    def close(self) -> None:
        """Close all connections; what is sent later is sent over new ones."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._idle.clear()

    def _delivery(self, body: bytes, forged: bool, ahead: float) -> bytes:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if self._secret is not None:
            secret = f"not {self._secret}" if forged else self._secret
            headers[SIGNATURE_HEADER] = sign(secret, body, int(time.time() + ahead))
        return self._request("POST", self.address.target, headers) + body

    def _request(self, method: str, target: str, headers: dict[str, str]) -> bytes:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} {target} HTTP/1.1\r\nHost: {self.address.name}\r\n{fields}\r\n".encode()

    async def _ask(self, request: bytes) -> tuple[int, str, float]:
        host, connection = await self._connected()
        try:
            answer = await connection.ask(request)
        finally:
            if connection.reusable and self._reuse:
                connection.idle_since = time.monotonic()
                self._idle[host].append(connection)
            else:
                self._drop(connection)
        return answer

    async def _connected(self) -> "tuple[Host, _Connection]":
        host, *others = self._next_hosts()
        for other in others if self.address.one_name else ():
            try:
                return host, self._take_idle(host) or await self._connect(host)
            except OSError:
                # A name may have an IPv6 address, at which nobody listens or to which there is no way.
                host = other
        return host, self._take_idle(host) or await self._connect(host)

    def _next_hosts(self) -> tuple[Host, ...]:
        """Return the hosts, the one first whose turn it is."""
        hosts = self.address.hosts
        if not hosts:
            raise ConnectionRefusedError("no server is up")
        turn = self._next % len(hosts)
        self._next += 1
        return hosts[turn:] + hosts[:turn]

    def _take_idle(self, host: Host) -> "_Connection | None":
        idle = self._idle[host]
        while idle:
            connection = idle.pop()
            if not connection.lost and time.monotonic() - connection.idle_since < IDLE:
                return connection
            self._drop(connection)
        return None

    async def _connect(self, host: Host) -> "_Connection":
        server_name = self.address.name.rpartition(":")[0] or self.address.name
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, *host, ssl=self._ssl, server_hostname=server_name if self._ssl else None
        )
        self._connections.add(connection)
        return connection

    def _drop(self, connection: "_Connection") -> None:
        connection.close()
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    """Make one request after the other; the time of an answer is that of its first byte."""

    def __init__(self) -> None:
        self.lost = False
        self.reusable = False
        self.idle_since = time.monotonic()
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[tuple[int, str, float]] | None = None

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, str, float]]":
        """Write a request; the future holds the answer's status, its reason and when it came, or a ConnectionError."""
        assert self._transport is not None  # noqa: S101 - it was opened
        self.reusable = False
        self._status, self._reason, self._arrived = 0, b"", 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        if self.lost:
            self._fail("the connection was closed")
        else:
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()
            return
        self._arrived = self._arrived or time.monotonic()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the answer is not HTTP: {error}")

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if self._status < 200:
            self._status, self._reason, self._arrived = 0, b"", 0.0
            return
        self.reusable = self._parser.should_keep_alive()
        self._succeed()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            if self._status and error is None:
                self._succeed()
            else:
                self._fail("the connection was closed before the answer")

    def _succeed(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._status, self._reason.decode("latin-1"), self._arrived))

    def _fail(self, why: str) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(why))


async def send_paced(
    due: Iterable[tuple[float, T]],
    send: Callable[[T], Coroutine[Any, Any, None]],
    stop: asyncio.Event,
) -> None:
    """Call `send` with each value, so many seconds after the beginning, whatever became of those before; await all.

    Once `stop` is set nothing more is sent, and what was sent is still awaited.
    """
    began = time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    for at, value in due:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, began + at - time.monotonic())):
                await stop.wait()
        if stop.is_set():
            break
        task = asyncio.create_task(send(value))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
