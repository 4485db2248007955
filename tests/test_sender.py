"""The one sender of simulations, benchmark and reliability suite: how it reads answers, and where it sends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.serving import serving
from tests.support.until import eventually
from whereby_trigger.testing.sender import Address, Response, Sender

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def answering(*answers: bytes, heard: list[bytes] | None = None) -> AsyncIterator[int]:
    """Answer the incoming requests one after the other, from any client; yield the port."""
    left = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if heard is not None:
                heard.append(head)
            if b"POST" in head:
                await reader.readexactly(2)
            answer = next(left, b"")
            writer.write(answer)
            if b"ength: 0" not in answer:
                break

    async with serving(serve) as port:
        yield port


async def delivered(sender: Sender) -> list[int]:
    try:
        return [answer.status for answer in await sender.deliver(b"{}")]
    finally:
        sender.close()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 201),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok", 202),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0),
        (b"", 0),
    ],
    ids=["a length", "no content", "chunks", "until the end", "an interim answer", "not HTTP", "no answer"],
)
async def test_any_receiver_s_answer_is_understood(answer: bytes, status: int) -> None:
    async with answering(answer) as port:
        assert await delivered(Sender(Address.local(port), "secret")) == [status]


async def test_an_answer_says_what_it_was_and_when() -> None:
    noted: list[Response] = []
    async with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as port:
        sender = Sender(Address.local(port), None)
        await sender.deliver(b"{}", noted=noted.append)
        sender.close()
    (answer,) = noted
    assert (answer.status, answer.reason, answer.is_retried) == (404, "Not Found", False)
    assert 0 < answer.seconds < 5 < answer.sent_at


async def test_a_connection_is_used_again_and_no_longer_once_the_server_has_closed_it() -> None:
    ok, last = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-Length:0\r\n\r\n"
    async with answering(ok, last, ok) as port:
        sender = Sender(Address.local(port), "secret")
        for expected in (1, 0):
            await sender.deliver(b"{}")
            await eventually(lambda expected=expected: sender.open_connections == expected)  # type: ignore[misc]
        assert await delivered(sender) == [200]


async def test_without_reuse_each_request_has_a_connection_of_its_own() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
        sender = Sender(Address.local(port), "secret", reuse=False)
        await sender.deliver(b"{}")
        assert sender.open_connections == 0


async def test_the_address_may_change_between_two_deliveries_and_be_nobody_s() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    sender = Sender(Address.local(), "secret")
    assert await delivered(sender) == [0]
    async with answering(ok) as first, answering(ok) as second:
        for port in (first, second):
            sender.address = Address.local(port)
            assert await delivered(sender) == [200]


async def test_of_a_name_s_addresses_those_that_cannot_be_reached_are_passed_over() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with answering() as closed:
        pass
    async with answering(ok, ok, ok) as port:
        sender = Sender(Address((("127.0.0.1", closed), ("127.0.0.1", port)), "a.name", "/"), "secret")
        for _ in range(3):
            assert [answer.status for answer in await sender.deliver(b"{}")] == [200]
        sender.close()
    assert await delivered(sender) == [0]


async def test_behind_a_proxy_a_connection_that_fails_is_a_502_and_retried() -> None:
    async with answering(b"", b"", b"") as port:
        assert await delivered(Sender(Address.local(port), "secret", proxied=True)) == [502, 502, 502]


async def test_a_path_is_asked_for_unsigned() -> None:
    heard: list[bytes] = []
    async with answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", heard=heard) as port:
        sender = Sender(Address.local(port), "secret")
        assert (await sender.get("/readyz")).status == 503
        sender.close()
    assert heard == [b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"]
