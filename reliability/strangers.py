"""Many clients without a signature that use as much as they can, in one separate process.

Run as `python -m reliability.strangers PORT MANNER SOCKETS`, until killed. A connection that the server closes is
opened again. Each line that it prints says how many it has opened.
"""

import asyncio
import resource
import socket
import struct
import sys
from collections.abc import Mapping
from typing import cast

import uvloop
from msgspec import Struct

HOST = "127.0.0.1"
AGAIN_AFTER = 10.0
"""Seconds after which a connection that was closed, or refused, is opened again."""

AT_ONCE = 200
"""Connections that are being opened at a time."""

RESERVE = 100
"""File descriptors reserved for what is not a connection."""

SAY_EVERY = 0.2

LOOKS = b"GET / HTTP/1.1\r\nHost: whereby\r\n\r\n" * 2000
BODY = 64 * 1024
ANNOUNCED = b"POST / HTTP/1.1\r\nHost: whereby\r\nContent-Length: %d\r\n\r\n" % BODY
CHUNKED = b"POST / HTTP/1.1\r\nHost: whereby\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = CHUNKED + b"2\r\n\r\n\r\n" * (BODY // 16) + b"2\r\nab\r\n" * (BODY // 16)
RESET = struct.pack("ii", 1, 0)


class Manner(Struct, frozen=True):
    """Hold what a stranger sends, whether repeatedly, and whether it reads the answers."""

    sends: bytes
    again: bool = False
    reads: bool = True


KINDS: Mapping[str, Mapping[str, Manner]] = {
    "requests ahead": {"sends requests ahead": Manner(LOOKS, again=True)},
    "answers": {"takes no answers": Manner(LOOKS, again=True, reads=False)},
    "bodies": {
        "announces a body": Manner(ANNOUNCED),
        "sends all of a body but its last byte": Manner(ANNOUNCED + b"x" * (BODY - 1)),
        "sends a body in chunks of two bytes": Manner(CHUNKS),
        "sends a body where none belongs": Manner(ANNOUNCED.replace(b"POST", b"GET") + b"x" * (BODY - 1)),
    },
    "silence": {"says nothing": Manner(b"")},
}
"""The manners of each kind of stranger."""


class Stranger(asyncio.Protocol):
    """Hold one connection, and open another when it is closed."""

    def __init__(self, crowd: "Strangers") -> None:
        self._crowd = crowd
        self._writing = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if not self._crowd.manner.reads:
            self._transport.pause_reading()
        self._send()

    def _send(self) -> None:
        if self._transport.is_closing() or not self._writing:
            return
        if self._crowd.manner.sends:
            self._transport.write(self._crowd.manner.sends)
        if self._crowd.manner.again:
            self._crowd.loop.call_later(0.1, self._send)

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.lost()


class Strangers:
    """Keep `sockets` connections of one manner open."""

    def __init__(self, port: int, manner: Manner, sockets: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.manner = manner
        self.opened = 0
        self._port = port
        self._sockets = sockets
        self._opening = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        for _ in range(self._sockets):
            self._open()
        while True:
            sys.stdout.write(f"{self.opened}\n")
            sys.stdout.flush()
            await asyncio.sleep(SAY_EVERY)

    def lost(self) -> None:
        self.loop.call_later(AGAIN_AFTER, self._open)

    def _open(self) -> None:
        task = self.loop.create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        async with self._opening:
            client = socket.socket()
            client.setblocking(False)
            # A connection closed by a reset does not occupy its port for another minute.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            try:
                await self.loop.sock_connect(client, (HOST, self._port))
                await self.loop.create_connection(lambda: Stranger(self), sock=client)
                self.opened += 1
            except OSError:
                client.close()
                self.lost()


def main(port: str, manner: str, sockets: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = min(int(sockets), hard - RESERVE)

    async def run() -> None:
        manners = {name: each for kind in KINDS.values() for name, each in kind.items()}
        await Strangers(int(port), manners[manner], number).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main(*sys.argv[1:])
