"""How much memory deliveries may take at once: those that wait for the store, and bodies that are still being read."""

from collections.abc import Callable

MAX_REQUESTS = 2000
MAX_BYTES = 64 * 1024 * 1024

MAX_ARRIVING = 16 * 1024 * 1024
"""Bytes of bodies that are still incomplete: nobody has proved by then that they are Whereby's."""


class InFlightLimit:
    """Count the deliveries that wait for the store, and the bytes they hold; while it is `full`, no more may wait."""

    def __init__(self, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0
        self.full = False

    def enter(self, size: int) -> bool:
        """Count one delivery more, whose body has `size` bytes; return False if no more may wait."""
        if self.full:
            return False
        self.requests += 1
        self.bytes += size
        self.full = self.requests >= self._max_requests or self.bytes >= self._max_bytes
        return True

    def leave(self, size: int) -> None:
        """Count it no more."""
        self.requests -= 1
        self.bytes -= size
        self.full = self.requests >= self._max_requests or self.bytes >= self._max_bytes


class Arriving:
    """Bound the bytes of all bodies that are still being read; beyond it, the one that began first gives way.

    Bytes count when they are there, not when they are announced. A newcomer is never refused: it may be signed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.bodies: dict[Incoming, None] = {}
        self.bytes = 0

    def make_room(self) -> None:
        while self.bytes > self._max_bytes:
            first = next(iter(self.bodies))
            first.leave()
            first.give_way()


class Incoming:
    """Hold what has come of one body, until it is complete, given up, or made to give way."""

    __slots__ = ("_arriving", "_bytes", "give_way")

    def __init__(self, arriving: Arriving, give_way: Callable[[], None]) -> None:
        self._arriving = arriving
        self._bytes = 0
        self.give_way = give_way
        arriving.bodies[self] = None

    def hold(self, size: int) -> None:
        """Count `size` bytes more; this may make this very body give way."""
        if self in self._arriving.bodies:
            self._bytes += size
            self._arriving.bytes += size
            self._arriving.make_room()

    def leave(self) -> None:
        """Count it no more; may be called more than once."""
        if self in self._arriving.bodies:
            del self._arriving.bodies[self]
            self._arriving.bytes -= self._bytes
