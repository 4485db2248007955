"""The trigger as an ASGI app: knows its path, reads a delivery and answers it. User code never runs in here.

`/readyz` says whether this replica can take deliveries and act on them now.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any
from urllib.parse import quote

from whereby_trigger.assist import Supervisor
from whereby_trigger.decide import Decider, UserCode
from whereby_trigger.deliveries import Delivery, DeliveryLog
from whereby_trigger.errors import StoreError
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Counts
from whereby_trigger.receive.intake import OWS, Headers, declared_length
from whereby_trigger.receive.receiver import (
    CROWDED_OUT,
    MAX_ARRIVING,
    OK,
    RETRY_AFTER,
    Answer,
    Arriving,
    Incoming,
    InFlightLimit,
    Receiver,
    refusal,
)
from whereby_trigger.store import RefusalReason, Store

PING_WITHIN = 2.0
"""Seconds in which the store must take a write."""


class Readiness:
    """Ask each stage whether it can work now; `draining` is set once this replica is about to end."""

    def __init__(self, store: Store, user_code: UserCode, decider: Decider, supervisor: Supervisor) -> None:
        self._store = store
        self._user_code = user_code
        self._decider = decider
        self._supervisor = supervisor
        self.draining = False
        self._pinging: asyncio.Task[bool] | None = None

    @property
    def spilled(self) -> int | None:
        """How many deliveries wait for the database; None if they have no place to wait."""
        return self._store.spilled

    async def is_ready(self) -> bool:
        """Return True if deliveries are taken, decided and given assistants."""
        short = self._user_code.short or self._decider.short or self._supervisor.short
        return not self.draining and not short and await self._takes_writes()

    async def _takes_writes(self) -> bool:
        # One write for all who ask meanwhile: anybody may ask, and the renewals of the lease must not wait behind them.
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.create_task(self._ping())
        await asyncio.wait({self._pinging})
        return self._pinging.result()

    async def _ping(self) -> bool:
        try:
            async with asyncio.timeout(PING_WITHIN):
                await self._store.ping(time.time())
        except (StoreError, TimeoutError):
            return False
        return True


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

READ_WITHIN = 10.0
"""Seconds after which a request that is still incomplete is given up."""

LIVE, READY = PROBES = ("/livez", "/readyz")
LONGEST_PATH = 200
"""Characters of a path that is not served, up to which it is logged."""

TELLS_LENGTH, TOLD_WITHIN = b"\r\ncontent-length:", 2048
"""How a head tells its body's length, and within how many bytes it usually does."""

AS_THEY_ARE = "/!$&'()*+,;=:@"
"""What senders do not encode in a path, besides letters, digits and `-._~`. Source: RFC 3986, 3.3."""

LET_IN = "whereby_trigger.let_in"
"""Whether a delivery was answered 200, in its scope: our own server keeps the connections that brought one."""

CLOSE = (b"connection", b"close")
JSON = (b"content-type", b"application/json")

TOO_LARGE = refusal(RefusalReason.TOO_LARGE, "the body is too large", CLOSE)
INCOMPLETE = refusal(RefusalReason.INCOMPLETE, "the request was not complete in time", CLOSE)
GAVE_WAY = refusal(RefusalReason.CROWDED, CROWDED_OUT.reason, RETRY_AFTER, CLOSE)


class Endpoint:
    """Serve one path over ASGI. Mounted in a host app, whatever the host routes here is that path."""

    def __init__(
        self,
        receiver: Receiver,
        in_flight: InFlightLimit,
        readiness: Readiness,
        log: DeliveryLog,
        *,
        path: str,
        max_body: int,
    ) -> None:
        self.receiver = receiver
        self.in_flight = in_flight
        self._readiness = readiness
        self._log = log
        self.arriving = Arriving(max(MAX_ARRIVING, 2 * max_body))
        self.path = path
        self.url = quote(path, safe=AS_THEY_ARE).encode()
        # How a delivery begins.
        self.posted = b"POST %b HTTP/1." % self.url, b"POST %b?" % self.url
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path_below_root(scope)
        probed = path in PROBES
        reads, delivers = scope["method"] in ("GET", "HEAD"), scope["method"] == "POST"
        elsewhere = probed or (path != self.path and "endpoint" not in scope)
        if elsewhere and delivers:
            self._note_elsewhere(scope, RefusalReason.WRONG_METHOD if probed else RefusalReason.WRONG_PATH)
        if elsewhere and not probed:
            await _send_answer(send, 404)
        elif probed and reads:
            await self._probe(path, send, bodiless=scope["method"] == "HEAD")
        elif reads:
            await _send_answer(send, 200)
        elif probed or not delivers:
            if not elsewhere:
                self._log.unread(RefusalReason.WRONG_METHOD)
            await _send_answer(send, 405, (b"allow", b"GET, HEAD" if probed else b"GET, HEAD, POST"))
        else:
            await self._deliver(scope, receive, send)

    def begins_delivery(self, data: bytes) -> bool:
        """Return True if the first bytes of a request are a delivery's: it has the path, and tells a body's length."""
        return data.startswith(self.posted) and TELLS_LENGTH in data[:TOLD_WITHIN].lower()

    def unread(self, reason: RefusalReason, count: int = 1) -> None:
        """Note requests that the server refused itself, or connections that it closed."""
        self._log.unread(reason, count)

    def _note_elsewhere(self, scope: Scope, why: RefusalReason) -> None:
        served = quote(scope.get("root_path", "").rstrip("/") + self.path, errors="replace")
        asked = quote(scope["path"][:LONGEST_PATH], errors="replace")[:LONGEST_PATH]
        reason = f"deliveries are taken at {served}, not at {asked}"
        self._log.answered(Delivery(why.status, reason, refusal=why, path=scope["path"]))

    async def _probe(self, path: str, send: Send, *, bodiless: bool) -> None:
        if path == LIVE:
            await _send_answer(send, 200)
            return
        ready, spilled = await self._readiness.is_ready(), self._readiness.spilled
        body = b"" if bodiless or spilled is None else b'{"spilled": %d}\n' % spilled
        await _send_answer(send, 200 if ready else 503, *((JSON,) if body else ()), body=body)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        headers = [(name, value.strip(OWS)) for name, value in scope["headers"]]
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        answer = partial(_settle, answered)
        try:
            self._refuse_unread(headers)
            body = await self._read(receive)
        except _Refused as refused:
            self.receiver.refuse(refused.answer, started, answer, scope["path"])
        except _Gone:
            return
        else:
            self.receiver.take(headers, body, started, answer, scope["path"], scope.get("http_version", "1.1"))
        given = await answered
        scope[LET_IN] = given is OK
        await _send_answer(send, given.status, *given.headers)

    def _refuse_unread(self, headers: Headers) -> None:
        if (declared_length(headers) or 0) > self.max_body:
            raise _Refused(TOO_LARGE)
        if self.in_flight.full:
            raise _Refused(CROWDED_OUT)

    async def _read(self, receive: Receive) -> bytes:
        incoming = None
        gave_way = False

        def give_way() -> None:
            nonlocal gave_way
            gave_way = True
            limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(READ_WITHIN) as limit:
                incoming = Incoming(self.arriving, give_way)
                return await self._read_chunks(receive, incoming)
        except TimeoutError:
            if gave_way:
                raise _Refused(GAVE_WAY) from None
            raise _Refused(INCOMPLETE) from None
        finally:
            if incoming is not None:
                incoming.leave()

    async def _read_chunks(self, receive: Receive, incoming: Incoming) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            chunk = message.get("body", b"")
            body += chunk
            if len(body) > self.max_body:
                raise _Refused(TOO_LARGE)
            if not message.get("more_body", False):
                return bytes(body)
            incoming.hold(len(chunk))


class _Refused(Exception):
    """A delivery is refused before all of it was read."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


class _Gone(Exception):
    """The sender hung up before its request was complete."""


def _settle(answered: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)


def _path_below_root(scope: Scope) -> str:
    """Return the path without the prefix that a proxy stripped and the server puts back. Source: ASGI, HTTP scope."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return (path.removeprefix(root) or "/") if f"{path}/".startswith(f"{root}/") else path


async def _send_answer(send: Send, status: int, *headers: tuple[bytes, bytes], body: bytes = b"") -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


logger = own_logger("whereby_trigger")

LIFESPAN_MISSING = """\
a request was answered 503: the trigger is mounted but not running. Add its lifespan to the host app:

    app = FastAPI(lifespan=trigger.lifespan)    # or Starlette(lifespan=trigger.lifespan)

or, where the app has a lifespan already, put `async with trigger.lifespan(app):` around its `yield`."""


class MountedApp:
    """Answer ASGI requests with the running edge; with 503, and a hint in the log, while there is none."""

    def __init__(self, lifespan: Callable[[Any], Any], endpoint: Callable[[], Endpoint | None], counts: Counts) -> None:
        self._lifespan = lifespan
        self._endpoint = endpoint
        self._counts = counts
        self._hinted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Imported here, since only a server that runs `trigger.asgi` as it is needs it.
        from starlette.routing import Router

        await Router(lifespan=self._lifespan)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint()
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        if not self._hinted:
            self._hinted = True
            logger.error("%s", LIFESPAN_MISSING)
        if scope["method"] == "POST":
            # In the metrics only: there is no store.
            self._counts.refused(RefusalReason.NOT_RUNNING)
        headers = [(b"content-length", b"0"), (b"retry-after", b"5")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
