"""How much may wait for the store at once: a bound in requests and in bytes."""

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
    """Hold one request's place among those that wait, and what it holds in bytes, until it is left."""

    __slots__ = ("_bytes", "_waiting")

    def __init__(self, waiting: Waiting, size: int = 0) -> None:
        self._waiting = waiting
        self._bytes = 0
        waiting.requests += 1
        self.hold(size)

    def hold(self, size: int) -> None:
        """Count `size` bytes more."""
        self._bytes += size
        self._waiting.bytes += size

    def leave(self) -> None:
        self._waiting.requests -= 1
        self._waiting.bytes -= self._bytes
