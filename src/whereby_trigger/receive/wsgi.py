"""The trigger as a WSGI app: each process that serves runs it in a thread with an event loop of its own."""

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Final
from wsgiref.util import is_hop_by_hop

from whereby_trigger.errors import LifecycleError, TriggerError
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Counts
from whereby_trigger.receive.asgi import Endpoint
from whereby_trigger.store import RefusalReason

logger = own_logger("whereby_trigger")

START_WITHIN = 4.0
"""Seconds that a request waits for the trigger to open: Whereby gives up after 5. Source: Whereby docs."""

ANSWER_WITHIN = 5.0
"""Seconds after which a request is answered 503 if the event loop does not answer it."""

START_AGAIN = 1.0
"""Seconds after a failed start in which no other is tried."""

EXIT_WITHIN = 25.0
"""Seconds that the exit of the process waits for the drain: gunicorn kills a worker after 30. Source: its docs."""

FORKED: Final = (
    "the trigger was started before this process was forked, and cannot run in both: start it in each worker, "
    "e.g. by `trigger.wsgi.start()` in gunicorn's post_worker_init, or let the first request start it"
)

Response = tuple[int, list[tuple[str, str]], bytes]
Environ = Mapping[str, Any]


class WsgiApp:
    """Answer WSGI requests with the trigger; it starts with the first request, or when `start()` is called.

    `lifespan` runs the trigger for as long as its block, and `end_within` bounds the end of that, in seconds.
    `endpoint` returns what takes deliveries meanwhile. `counts` counts the deliveries that find no trigger running.
    """

    def __init__(
        self,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        end_within: Callable[[float], None],
        endpoint: Callable[[], Endpoint | None],
        counts: Counts,
    ) -> None:
        self._lifespan = lifespan
        self._end_within = end_within
        self._endpoint = endpoint
        self._counts = counts
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._started_in = 0
        self._failed: TriggerError | None = None
        self._try_again_at = 0.0

    def start(self) -> None:
        """Start the trigger in this process, if it is not running, and wait until it takes deliveries.

        Call it where a worker begins, so that what an earlier process left undecided does not wait for a request.
        Raises ConfigError, StoreError or LifecycleError if it cannot start, and TimeoutError if that takes longer than
        START_WITHIN; it goes on to start then.
        """
        self._running_here().wait(START_WITHIN)

    def stop(self, within: float = EXIT_WITHIN) -> None:
        """Drain and stop the trigger in this process, and wait for that at most `within` seconds.

        Whatever `drain_timeout` is, assistants are told to leave early enough for their `stop_grace`. If it is still
        starting, it stops once it has, and is not waited for. It also happens when the process exits.
        """
        with self._lock:
            running, self._running = self._running, None
        if running is not None and self._started_in == os.getpid():
            running.stop(within)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            running = self._running_here()
            running.wait(START_WITHIN)
            status, headers, body = running.ask(environ)
        except (TriggerError, TimeoutError) as error:
            logger.error("a request was answered 503: the trigger does not run: %s", error)
            if environ["REQUEST_METHOD"] == "POST" and not isinstance(error, _NoAnswer):
                # In the metrics only: there is no store.
                with self._lock:
                    self._counts.refused(RefusalReason.NOT_RUNNING)
            status, headers, body = 503, [("Retry-After", "5"), ("Content-Length", "0")], b""
        if not any(name == "Content-Type" for name, _ in headers):
            # WSGI wants one even with an empty body. Source: wsgiref.validate.
            headers.append(("Content-Type", "text/plain"))
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [body]

    def _running_here(self) -> "_Running":
        if self._running is not None and self._started_in != os.getpid():
            raise LifecycleError(FORKED)
        with self._lock:
            if self._running is not None and self._running.failed is not None:
                self._failed, self._running = self._running.failed, None
                self._try_again_at = time.monotonic() + START_AGAIN
            if self._running is None:
                if self._failed is not None and time.monotonic() < self._try_again_at:
                    raise self._failed
                self._start()
            assert self._running is not None  # noqa: S101 - it was just started
            return self._running

    def _start(self) -> None:
        if not self._started_in:
            # A thread of the parent may hold the lock at this moment, and does not exist in the child.
            os.register_at_fork(after_in_child=self._renew_lock)
            atexit.register(self.stop)
        self._started_in = os.getpid()
        self._running = _Running(self._lifespan, self._end_within, self._endpoint)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


class _NoAnswer(TimeoutError):
    """The event loop has a request, and counts it by what becomes of it."""


class _Running:
    """Run the trigger in a thread until told to stop."""

    def __init__(
        self,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
        end_within: Callable[[float], None],
        endpoint: Callable[[], Endpoint | None],
    ) -> None:
        self._lifespan = lifespan
        self._end_within = end_within
        self._endpoint = endpoint
        self._opened: Future[asyncio.AbstractEventLoop] = Future()
        self._closed = threading.Event()
        self._stopping: asyncio.Event | None = None
        # Once it is told to stop, within how many seconds.
        self._told: float | None = None
        # A daemon: a host that exits must not wait for a meeting of hours.
        threading.Thread(target=self._run, name="whereby-trigger-wsgi", daemon=True).start()

    @property
    def failed(self) -> TriggerError | None:
        """Why it could not start, or has ended; None while it starts or runs."""
        if not self._closed.is_set():
            return None
        error = self._opened.exception() if self._opened.done() else None
        return error if isinstance(error, TriggerError) else LifecycleError("the trigger has stopped")

    def wait(self, within: float) -> None:
        """Wait until deliveries are taken. Raises what the start raised, or TimeoutError."""
        try:
            self._opened.result(within)
        except TimeoutError:
            raise TimeoutError(f"it has not opened its store within {within:g} s") from None

    def stop(self, within: float) -> None:
        """Drain, and wait for the end; a start that is under way stops once it has opened."""
        self._told = within
        if self._opened.done() and self._opened.exception() is None and self._stopping is not None:
            loop = self._opened.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._begin_to_stop, self._stopping, within)
                self._closed.wait(within)

    def _begin_to_stop(self, stopping: asyncio.Event, within: float) -> None:
        self._end_within(within)
        stopping.set()

    def ask(self, environ: Environ) -> Response:
        """Answer a request. Raises _NoAnswer if the event loop does not in time; it takes the request even then."""
        endpoint = self._endpoint()
        if endpoint is None:
            raise LifecycleError("it is stopping")
        request = _answer(endpoint, _scope(environ), _body(environ, endpoint.max_body))
        answering = asyncio.run_coroutine_threadsafe(request, self._opened.result())
        try:
            return answering.result(ANSWER_WITHIN)
        except TimeoutError:
            answering.cancel()
            raise _NoAnswer("its event loop did not answer: is it blocked by user code?") from None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            else:
                logger.error("the trigger ended with %s", type(error).__name__)
        finally:
            self._closed.set()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        async with self._lifespan():
            self._opened.set_result(asyncio.get_running_loop())
            if self._told is None:
                await self._stopping.wait()
            else:
                self._end_within(self._told)


async def _answer(endpoint: Endpoint, scope: MutableMapping[str, Any], body: bytes) -> Response:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await endpoint(scope, receive, send)
    start, content = sent
    headers = [(name.decode("latin-1").title(), value.decode("latin-1")) for name, value in start["headers"]]
    # What concerns the connection is the server's: wsgiref answers 500 to an app that sends it. Source: PEP 3333.
    return start["status"], [one for one in headers if not is_hop_by_hop(one[0])], content["body"]


def _scope(environ: Environ) -> MutableMapping[str, Any]:
    """Return a request as ASGI describes it. Source: PEP 3333, environ Variables; ASGI, HTTP Connection Scope."""
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    if environ.get("CONTENT_LENGTH"):
        headers.append((b"content-length", environ["CONTENT_LENGTH"].encode("latin-1")))
    root = _decoded(environ.get("SCRIPT_NAME", ""))
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "path": (root + _decoded(environ.get("PATH_INFO", ""))) or "/",
        "root_path": root,
        "headers": headers,
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").partition("/")[2],
    }


def _decoded(path: str) -> str:
    # WSGI has the path's bytes as Latin-1. Source: PEP 3333, Unicode Issues.
    return path.encode("latin-1").decode(errors="replace")


def _body(environ: Environ, limit: int) -> bytes:
    """Read a request's body, one byte more than allowed at most."""
    source, declared = environ["wsgi.input"], environ.get("CONTENT_LENGTH") or ""
    if declared.isascii() and declared.isdigit():
        # A larger one is refused unread.
        left = int(declared[:20])
        return b"" if left > limit else _read(source, left)
    return _read(source, limit + 1) if environ.get("wsgi.input_terminated") else b""


def _read(source: Any, length: int) -> bytes:
    chunks: list[bytes] = []
    while length > 0 and (chunk := source.read(length)):
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)
