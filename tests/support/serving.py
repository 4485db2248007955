"""A small server that a test writes for itself, and that ends with its block whatever its clients do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

HOST = "127.0.0.1"
LIMIT = 2**16


@asynccontextmanager
async def serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], limit: int = LIMIT
) -> AsyncIterator[int]:
    """Serve each connection by a function; yield the port. A connection that is still open at the end is cut.

    `Server.wait_closed()` waits for open connections from Python 3.12.1 on, and so forever if the client's end is
    closed only after this block.
    """
    calls: set[asyncio.Task[None]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call is not None
        calls.add(call)
        writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await serve(reader, writer)
        finally:
            writer.close()
            writers.discard(writer)
            calls.discard(call)

    server = await asyncio.start_server(served, HOST, 0, limit=limit)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        if calls:
            await asyncio.wait(calls)
