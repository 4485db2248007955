"""The ASGI edge: reads a delivery, has it judged and stored, and answers. User code never runs in here."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.receive.intake import Accepted, Headers, Rejected, Rules, intake
from whereby_trigger.receive.waiting import Place, Waiting
from whereby_trigger.store import Added, Arrival

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ANSWER_WITHIN = 4.5
"""Seconds a delivery waits for the store: Whereby gives up after 5. Source: Whereby docs, Failed delivery."""

READ_WITHIN = 10.0
"""Seconds after which a request that is still incomplete is given up."""

LIVE, READY = PROBES = ("/livez", "/readyz")
CROWDED = "too many deliveries wait for the store"
RETRY_AFTER = (b"retry-after", b"5")
CLOSE = (b"connection", b"close")
JSON = (b"content-type", b"application/json")


class Delivery(Struct):
    """Describe one delivery and its answer, for the log, and what was decided, "" where nothing was by it.

    `seconds` runs from its first byte to its answer, or to the decision.
    """

    status: int
    reason: str
    type: str = ""
    room: str | None = None
    id: str = ""
    skew: float | None = None
    seconds: float = 0.0
    decision: str = ""


class Host(Protocol):
    """What the edge needs of the trigger it serves."""

    @property
    def draining(self) -> bool: ...

    def add(self, arrival: Arrival) -> Awaitable[Added]: ...

    @property
    def spilled(self) -> int | None:
        """How many deliveries wait for the database; None where there is no place for them to wait."""
        ...

    async def takes_writes(self) -> bool: ...

    def accepted(self, accepted: Accepted, added: Added, started: float) -> None:
        """Hand a stored webhook on; `started` is when its delivery began, by time.monotonic()."""
        ...

    def answered(self, delivery: Delivery) -> None:
        """Note an answer that no decision will follow."""
        ...


class Edge:
    """Serve one path over ASGI. Mounted in a host app, whatever the host routes here is that path."""

    def __init__(self, host: Host, rules: Rules, *, path: str, max_body: int) -> None:
        self._host = host
        self._rules = rules
        self._path = path
        self._max_body = max_body
        self._waiting = Waiting()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path_below_root(scope)
        probed = path in PROBES
        reads, delivers = scope["method"] in ("GET", "HEAD"), scope["method"] == "POST"
        if not probed and path != self._path and "endpoint" not in scope:
            await _answer(send, 404)
        elif probed and reads:
            await self._probe(path, send, bodiless=scope["method"] == "HEAD")
        elif reads:
            await _answer(send, 200)
        elif probed or not delivers:
            await _answer(send, 405, (b"allow", b"GET, HEAD" if probed else b"GET, HEAD, POST"))
        else:
            await self._deliver(scope, receive, send)

    async def _probe(self, path: str, send: Send, *, bodiless: bool) -> None:
        if path == LIVE:
            await _answer(send, 200)
            return
        ready = not self._host.draining and await self._host.takes_writes()
        spilled = self._host.spilled
        body = b"" if bodiless or spilled is None else b'{"spilled": %d}\n' % spilled
        await _answer(send, 200 if ready else 503, *((JSON,) if body else ()), body=body)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers = list(scope["headers"])
        try:
            self._refuse_unread(headers)
            with Place(self._waiting) as place:
                body = await self._read(receive, place)
                await self._take(headers, body, started, place)
        except _Refused as refused:
            seconds = time.monotonic() - started
            self._host.answered(Delivery(refused.status, str(refused), skew=refused.skew, seconds=seconds))
            await _answer(send, refused.status, *refused.headers)
        except _Gone:
            pass
        else:
            await _answer(send, 200)

    def _refuse_unread(self, headers: Headers) -> None:
        if _declared_length(headers) > self._max_body:
            raise _Refused(413, "the body is too large", CLOSE)
        if self._waiting.full:
            raise _Refused(503, CROWDED, RETRY_AFTER)

    async def _read(self, receive: Receive, place: Place) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(READ_WITHIN):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    chunk = message.get("body", b"")
                    body += chunk
                    place.hold(len(chunk))
                    if len(body) > self._max_body:
                        raise _Refused(413, "the body is too large", CLOSE)
                    if self._waiting.overfull:
                        raise _Refused(503, CROWDED, RETRY_AFTER, CLOSE)
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise _Refused(408, "the request was not complete in time", CLOSE) from None

    async def _take(self, headers: Headers, body: bytes, started: float, place: Place) -> None:
        verdict = intake(headers, body, time.time(), self._rules)
        if isinstance(verdict, Rejected):
            raise _Refused(verdict.status, verdict.reason, skew=verdict.skew)
        adding = asyncio.ensure_future(self._host.add(verdict.arrival))
        place.keep_until(adding)
        await asyncio.wait({adding}, timeout=ANSWER_WITHIN - (time.monotonic() - started))
        if not adding.done():
            raise _Refused(503, "the store did not answer in time", RETRY_AFTER)
        try:
            added = adding.result()
        except StoreError as error:
            raise _Refused(503, str(error), RETRY_AFTER) from error
        self._host.accepted(verdict, added, started)


class _Refused(Exception):
    """A delivery is answered with something else than 200."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes], skew: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers, self.skew = status, headers, skew


class _Gone(Exception):
    """The sender hung up before its request was complete."""


def _path_below_root(scope: Scope) -> str:
    """Give the path without the prefix that a proxy has stripped and the server puts back. Source: ASGI, HTTP scope."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return (path.removeprefix(root) or "/") if f"{path}/".startswith(f"{root}/") else path


def _declared_length(headers: Headers) -> int:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _answer(send: Send, status: int, *headers: tuple[bytes, bytes], body: bytes = b"") -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})
