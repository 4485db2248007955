"""How much may wait for the store at once: a bound in requests and in bytes."""

import asyncio
from types import TracebackType
from typing import Any

MAX_REQUESTS = 2000
MAX_BYTES = 64 * 1024 * 1024


class Waiting:
    """Count the requests that are being read or stored, and the bytes they hold."""

    def __init__(self, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return self.requests >= self._max_requests or self.bytes >= self._max_bytes

    @property
    def overfull(self) -> bool:
        """Whether one of those that wait has brought more than there is room for."""
        return self.bytes > self._max_bytes


class Place:
    """Hold one request's place among those that wait, and what it holds in bytes, for as long as a `with` block.

    Where its body was handed to the store, the place is held until the store is done with it, however long the
    request itself waits for that.
    """

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._bytes = 0
        self._storing: asyncio.Future[Any] | None = None

    def hold(self, size: int) -> None:
        """Count `size` bytes more."""
        self._bytes += size
        self._waiting.bytes += size

    def keep_until(self, storing: "asyncio.Future[Any]") -> None:
        """Hold the place until the store has answered."""
        self._storing = storing
        storing.add_done_callback(self._stored)

    def __enter__(self) -> "Place":
        self._waiting.requests += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._storing is None:
            self._leave()

    def _stored(self, storing: "asyncio.Future[Any]") -> None:
        # An answer that nobody waits for any more may be an error.
        if not storing.cancelled():
            storing.exception()
        self._leave()

    def _leave(self) -> None:
        self._waiting.requests -= 1
        self._waiting.bytes -= self._bytes
