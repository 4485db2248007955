"""HTTP in bytes: hand-written requests, over connections that tests keep, cut and stall at will."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from whereby_trigger.testing import sign

SECRET = "the secret of the tests"
WITHIN = 15.0

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    """Hold the answer to a request; the names of headers are lower-cased."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """Send and receive over one connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def hung_up(self) -> bool:
        """Whether the server is known to have closed the connection."""
        return self._reader.at_eof() or self._reader.exception() is not None

    async def send(self, data: bytes) -> None:
        """Send bytes, unless the server has hung up."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            return

    async def answer(self) -> Answer | None:
        """Read one answer; return None if the server closed the connection without one."""
        async with asyncio.timeout(WITHIN):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            status, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(status.split(" ")[1]), headers, body)

    async def ask(self, request: bytes) -> Answer | None:
        await self.send(request)
        return await self.answer()

    async def closed(self) -> float:
        """Wait until the server closes the connection, and return the seconds until then."""
        started = time.monotonic()
        async with asyncio.timeout(WITHIN):
            with contextlib.suppress(ConnectionError):
                assert await self._reader.read() == b""
        return time.monotonic() - started

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


@contextlib.asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[Connection]:
    connection = Connection(*await asyncio.open_connection(host, port))
    try:
        yield connection
    finally:
        await connection.close()


async def ask(port: int, request: bytes, host: str = "127.0.0.1") -> Answer | None:
    """Make one request on a new connection."""
    async with connected(port, host) as connection:
        return await connection.ask(request)


def request(
    method: str = "GET", path: str = "/", headers: Headers = (), body: bytes = b"", host: str = "localhost"
) -> bytes:
    """Return a request; a body's length is added to the headers."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def signature(body: bytes, *, secret: str = SECRET, age: float = 0) -> tuple[str, str]:
    return "Whereby-Signature", sign(secret, body, int(time.time() - age))


def delivery(body: bytes, *, path: str = "/", secret: str = SECRET, age: float = 0, headers: Headers = ()) -> bytes:
    """Return a delivery, signed `age` seconds ago."""
    return request("POST", path, [signature(body, secret=secret, age=age), *headers], body)
