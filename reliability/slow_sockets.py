"""Sockets that never finish their request: one byte a second, or none at all."""

import asyncio
from collections.abc import Mapping
from typing import cast

from msgspec import Struct

HOST = "127.0.0.1"
PACE = 1.0


class Manner(Struct, frozen=True):
    """Say what a slow socket sends at once, and the byte that it sends each second, if any."""

    first: bytes
    then: bytes


MANNERS: Mapping[str, Manner] = {
    "trickles its headers": Manner(b"POST / HTTP/1.1\r\nHost: whereby\r\nX-Slow: ", b"a"),
    "trickles its body": Manner(b"POST / HTTP/1.1\r\nHost: whereby\r\nContent-Length: 4000\r\n\r\n", b"{"),
    "says nothing": Manner(b"", b""),
}


class SlowSocket(asyncio.Protocol):
    """Hold one slow connection; `lasted` is how many seconds it took until the server closed it."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.time()
        self.lasted: asyncio.Future[float] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._manner.first)
        self._loop.call_later(PACE, self._send)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lasted.done():
            self.lasted.set_result(self._loop.time() - self._opened)

    def close(self) -> None:
        """Give up; the server has not closed it."""
        self._transport.abort()

    def _send(self) -> None:
        if not self.lasted.done():
            self._transport.write(self._manner.then)
            self._loop.call_later(PACE, self._send)


async def open_slow_sockets(port: int, number: int) -> list[SlowSocket]:
    """Open so many slow sockets, of each manner as many."""
    loop, manners = asyncio.get_running_loop(), list(MANNERS.values())

    async def open_one(manner: Manner) -> SlowSocket:
        _, socket = await loop.create_connection(lambda: SlowSocket(manner), HOST, port)
        return socket

    return list(await asyncio.gather(*(open_one(manners[index % len(manners)]) for index in range(number))))
