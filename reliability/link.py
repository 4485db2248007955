"""A link between clients and a local server that can be made to fail as networks do."""

import asyncio
import contextlib
import socket
import struct
from enum import Enum, auto
from urllib.parse import urlsplit

HOST = "127.0.0.1"
AT_ONCE = 65536
RESET = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends RST instead of FIN. Source: socket(7), SO_LINGER."""


class Fault(Enum):
    """Name what the link does to the bytes that pass it."""

    NONE = auto()
    CUT = auto()
    """Every connection is reset, and each new one immediately."""
    SILENT = auto()
    """All bytes are dropped; connections open meanwhile stay silent forever, as a half-open connection does.

    The server learns that a client has left when the link is healed: TCP retransmits until the bytes arrive.
    """
    SLOW = auto()
    """Every answer comes late."""
    TORN = auto()
    """A connection is reset in the middle of the answer to a message with the marker."""


class Link:
    """Pass bytes between its own port and the server's; an async context."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._fault = Fault.NONE
        self._latency = 0.0
        self._marker = b""
        self._passages: set[_Passage] = set()
        self._server: asyncio.Server | None = None
        self.healed = asyncio.Event()
        self.torn = 0
        """How many answers were torn."""

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def through(self, url: str) -> str:
        """Return the URL of a server's database through this link."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}").geturl()

    def heal(self) -> None:
        self._fault = Fault.NONE
        self.healed.set()

    def lead_to(self, port: int) -> None:
        """Pass new connections to another server, and reset the existing ones."""
        self._target = port
        for passage in list(self._passages):
            passage.reset()

    def cut(self) -> None:
        self._fault = Fault.CUT
        for passage in list(self._passages):
            passage.reset()

    def silence(self) -> None:
        self._fault = Fault.SILENT
        self.healed.clear()
        for passage in self._passages:
            passage.silent = True

    def delay(self, seconds: float) -> None:
        self._fault, self._latency = Fault.SLOW, seconds

    def tear(self, marker: bytes) -> None:
        """Tear the answer to the next message that contains a marker, then heal."""
        self._fault, self._marker = Fault.TORN, marker

    async def __aenter__(self) -> "Link":
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        passages = list(self._passages)
        for passage in passages:
            passage.reset()
        await asyncio.gather(*(passage.over.wait() for passage in passages))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passage = _Passage(self, writer)
        self._passages.add(passage)
        try:
            if self._fault is not Fault.CUT:
                passage.silent = self._fault is Fault.SILENT
                await passage.pass_on(reader, self._target)
        finally:
            passage.reset()
            passage.over.set()
            self._passages.discard(passage)

    async def weather(self, passage: "_Passage", chunk: bytes, *, answers: bool) -> bytes:
        """Apply the fault to some bytes; return those that arrive."""
        if passage.silent:
            return b""
        if self._fault is Fault.SLOW and answers:
            await asyncio.sleep(self._latency)
        if self._fault is Fault.TORN and not answers and self._marker in chunk:
            passage.to_be_torn = True
        if answers and passage.to_be_torn:
            passage.to_be_torn, passage.ends = False, True
            self.torn += 1
            self.heal()
            return chunk[: len(chunk) // 2]
        return chunk


class _Passage:
    """Hold one connection through the link."""

    def __init__(self, link: Link, client: asyncio.StreamWriter) -> None:
        self._link = link
        self._writers = [client]
        self._reset = asyncio.Event()
        self.over = asyncio.Event()
        self.silent = False
        self.to_be_torn = False
        self.ends = False

    async def pass_on(self, reader: asyncio.StreamReader, port: int) -> None:
        """Pass bytes both ways until one side closes."""
        try:
            answers, server = await asyncio.open_connection(HOST, port)
        except OSError:
            return
        self._writers.append(server)
        if self._reset.is_set():
            self.reset()
        ways = [
            asyncio.create_task(self._pump(reader, server, answers=False)),
            asyncio.create_task(self._pump(answers, self._writers[0], answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while not self.ends and (chunk := await reader.read(AT_ONCE)):
                writer.write(await self._link.weather(self, chunk, answers=answers))
                await writer.drain()
            # A half-open connection does not even show that the other side has closed.
            if self.silent:
                await (self._reset if answers else self._link.healed).wait()

    def reset(self) -> None:
        self._reset.set()
        for writer in self._writers:
            if not writer.transport.is_closing():
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
