"""The link that rows 8 and 9 use: it does to a connection what a network does, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from reliability.link import HOST, Link
from tests.support.serving import serving

pytestmark = pytest.mark.anyio

LIMIT = 2_000_000

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """Serve an echo of every line; yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)

    async with serving(serve, limit=LIMIT) as port:
        yield port


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Link, Streams]]:
    async with echo() as port, Link(port) as link:
        reader, writer = await asyncio.open_connection(HOST, link.port, limit=LIMIT)
        try:
            yield link, (reader, writer)
        finally:
            writer.transport.abort()


async def ask(streams: Streams, line: bytes = b"hello\n") -> bytes:
    reader, writer = streams
    writer.write(line)
    async with asyncio.timeout(5):
        return await reader.readline()


async def ask_anew(link: Link) -> bytes:
    streams = await asyncio.open_connection(HOST, link.port)
    try:
        return await ask(streams)
    finally:
        streams[1].transport.abort()


async def stays_silent(streams: Streams) -> bool:
    try:
        async with asyncio.timeout(0.1):
            await ask(streams)
    except TimeoutError:
        return True
    return False


async def test_a_sound_link_passes_everything() -> None:
    async with connected() as (_, streams):
        large = b"x" * (LIMIT // 2) + b"\n"
        assert await ask(streams, large) == large


async def test_a_cut_link_resets_what_is_connected_and_whoever_connects_until_it_is_healed() -> None:
    async with connected() as (link, streams):
        await ask(streams)
        link.cut()
        with pytest.raises(ConnectionResetError):
            await ask(streams)
        with pytest.raises(ConnectionResetError):
            await ask_anew(link)
        link.heal()
        assert await ask_anew(link) == b"hello\n"


async def test_a_half_open_connection_stays_silent_though_the_link_is_healed() -> None:
    async with connected() as (link, streams):
        await ask(streams)
        link.silence()
        assert await stays_silent(streams)
        meanwhile = await asyncio.open_connection(HOST, link.port)
        try:
            assert await stays_silent(meanwhile)
            link.heal()
            assert await stays_silent(streams)
            assert await ask_anew(link) == b"hello\n"
        finally:
            meanwhile[1].transport.abort()


async def test_a_client_that_left_a_half_open_connection_is_gone_for_the_server_once_the_link_is_healed() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        with suppress(ConnectionResetError):
            await reader.read()
        ended.set()

    async with serving(serve) as port, Link(port) as link:
        _, writer = await asyncio.open_connection(HOST, link.port)
        async with asyncio.timeout(5):
            await begun.wait()
        link.silence()
        writer.transport.abort()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ended.wait()
        link.heal()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_slow_link_passes_answers_late() -> None:
    async with connected() as (link, streams):
        link.delay(0.2)
        began = time.monotonic()
        assert await ask(streams) == b"hello\n"
        assert time.monotonic() - began >= 0.2


async def test_the_answer_to_what_is_marked_is_torn_and_no_other() -> None:
    async with connected() as (link, streams):
        link.tear(b"marked")
        assert await ask(streams) == b"hello\n"
        assert link.torn == 0
        streams[1].write(b"marked\n")
        assert await streams[0].readexactly(3) == b"mar"
        with pytest.raises(ConnectionResetError):
            await streams[0].read()
        assert link.torn == 1
        assert await ask_anew(link) == b"hello\n"


async def test_a_url_leads_through_the_link() -> None:
    async with Link(5432) as link:
        there = "postgresql://user:secret@127.0.0.1:{}/base"
        assert link.through(there.format(5432)) == there.format(link.port)
