"""A sender's connection: raw HTTP/1.1 on a socket that is kept alive, so that all that goes wrong can be told apart."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping

HOST = "127.0.0.1"
IDLE = 2.0
"""Seconds for which a connection is kept for another request; servers close idle ones later than that."""


class NoAnswer(Exception):
    """The connection was refused, reset or closed before an answer came."""


class Connection:
    """Post bodies one after the other; connects when needed, and anew after whatever went wrong."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._port = 0

    async def post(self, port: int, body: bytes, headers: Mapping[str, str]) -> int:
        """Post a body and return the answer's status; raises NoAnswer."""
        fields = {"Host": HOST, "Content-Length": len(body), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return await self._ask(port, f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def get(self, port: int, path: str) -> int:
        """Get a path and return the answer's status; raises NoAnswer."""
        return await self._ask(port, f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())

    async def _ask(self, port: int, request: bytes) -> int:
        try:
            reader, writer = await self._connected(port)
            writer.write(request)
            status, close = await read_answer(reader)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise NoAnswer(str(error)) from error
        except BaseException:
            self.close()
            raise
        if close:
            self.close()
        return status

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _connected(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (port != self._port or self._streams[0].at_eof()):
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, port)
            self._port = port
        return self._streams


class Connections:
    """Post bodies at the same time, each over a connection of its own that is used again."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[tuple[float, Connection]]] = defaultdict(list)

    async def post(self, port: int, body: bytes, headers: Mapping[str, str]) -> int:
        """Post a body and return the answer's status; raises NoAnswer."""
        idle = self._idle[port]
        since, connection = idle.pop() if idle else (0.0, Connection())
        if time.monotonic() - since > IDLE:
            connection.close()
        try:
            status = await connection.post(port, body, headers)
        except BaseException:
            connection.close()
            raise
        idle.append((time.monotonic(), connection))
        return status

    def close(self) -> None:
        for idle in self._idle.values():
            for _, connection in idle:
                connection.close()
        self._idle.clear()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read one answer; return its status, and whether the server closes the connection after it."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    await reader.readexactly(int(fields.get("content-length", 0)))
    return int(status_line.split()[1]), fields.get("connection") == "close"
