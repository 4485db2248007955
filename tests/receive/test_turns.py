"""The turns of strangers: who has brought no delivery yet waits for them, and for no more than that."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from unittest.mock import Mock

import pytest
import uvloop

from tests.receive.test_connections import BODY, Asking, Schedule, in_chunks
from tests.support.http import ask, connected, delivery, request, signature
from tests.support.receiver import Receiver
from tests.support.until import AT_ONCE, eventually
from whereby_trigger.receive import connections, server
from whereby_trigger.receive.connections import Connections
from whereby_trigger.receive.server import Protocol
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio


def test_a_stranger_has_one_place_however_often_it_is_scheduled() -> None:
    """Its answer and the rest of its body both scheduled it: its places grew, and health checks waited behind them."""
    schedule, shared = Schedule(), Connections()
    pushy, other = Asking(shared, schedule), Asking(shared, schedule)
    for _ in range(3 * connections.STRANGERS_A_TURN):
        shared.go_on_later(pushy)
    shared.go_on_later(other)
    (_, call) = schedule.calls.pop()
    call()
    assert (pushy.went_on, other.went_on) == (1, 1)


async def test_bodies_in_chunks_where_none_belong_do_not_make_others_wait(receiver: Receiver) -> None:
    chunks = b"".join(b"4\r\n\r\n\r\n\r\n" for _ in range(20)) + b"0\r\n\r\n"
    pushing = (request("POST", "/elsewhere", [("Transfer-Encoding", "chunked")]) + chunks) * 400
    most = 0
    async with AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(connected(receiver.port)) for _ in range(20)]
        sending = [asyncio.create_task(stranger.send(pushing)) for stranger in strangers]
        for _ in range(100):
            await strangers[0].answer()
            most = max(most, len(receiver.server.connections._strangers))
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)
    assert most <= 20


def test_an_error_in_the_turn_of_one_stranger_does_not_end_the_turns_of_the_others() -> None:
    """It could be a lack of memory: no health check would ever be answered again."""
    schedule, shared = Schedule(), Connections()
    failing, other = Asking(shared, schedule), Asking(shared, schedule)
    failing.go_on = Mock(side_effect=MemoryError)  # type: ignore[method-assign]
    for one in (failing, other):
        shared.go_on_later(one)
    (_, call) = schedule.calls.pop()
    with pytest.raises(MemoryError):
        call()
    (_, call) = schedule.calls.pop()
    call()
    assert other.went_on == 1


def test_a_process_that_was_frozen_in_a_turn_does_not_rest_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 70.0])
    monkeypatch.setattr(connections, "time", Mock(monotonic=lambda: next(now)))
    schedule, shared = Schedule(), Connections()
    shared.go_on_later(Asking(shared, schedule))
    (_, call) = schedule.calls.pop()
    call()
    assert schedule.calls[0][0] <= 0.5


CHUNKED = request("POST", "/", [("Transfer-Encoding", "chunked")])
MANY_LINES = {
    "chunks": CHUNKED + b"2\r\nab\r\n" * 15_000 + b"0\r\n\r\n",
    "trailers": CHUNKED + b"0\r\n" + b"a:\r\n" * 10_000 + b"\r\n",
    "headers": b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 900 + b"\r\n",
    "headers of what begins like a delivery": request("POST", "/", [("Content-Length", "2")])[:-2]
    + b"a:\r\n" * 900
    + b"\r\nab",
}


@pytest.mark.parametrize("data", MANY_LINES.values(), ids=MANY_LINES)
async def test_a_request_of_thousands_of_lines_does_not_hold_up_the_loop(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """One call to the parser took 50 ms for 64 KiB of them: with 20 such clients a delivery took 9 s."""
    in_a_turn = most = 0

    def counted(name: str) -> None:
        inner = getattr(Protocol, name)

        def count(self: Protocol, *parts: bytes) -> None:
            nonlocal in_a_turn, most
            in_a_turn += 1
            most = max(most, in_a_turn)
            inner(self, *parts)

        monkeypatch.setattr(Protocol, name, count)

    async def turns() -> None:
        nonlocal in_a_turn
        while True:
            in_a_turn = 0
            await asyncio.sleep(0)

    counted("on_header")
    counted("on_body")
    counting = asyncio.create_task(turns())
    answer = await ask(receiver.port, data)
    counting.cancel()
    assert answer is not None
    assert answer.status in (200, 401)
    assert most <= 2 * server.PIECES * server.LINES


async def test_each_part_of_a_strangers_body_in_chunks_waits_for_its_turn(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REST", 60.0)
    monkeypatch.setattr(connections, "LONGEST_REST", 60.0)
    async with connected(receiver.port) as stranger:
        await stranger.send(CHUNKED + b"2\r\nab\r\n")
        await eventually(lambda: receiver.edge.arriving.bytes == 2)
        await stranger.send(b"2\r\nab\r\n")
        await eventually(lambda: receiver.server.connections.ahead == 7)


async def test_what_a_known_connection_asks_takes_turns_too_but_not_what_it_delivers(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy sends the requests of a crowd over the connections that bring deliveries."""
    async with connected(receiver.port) as asking, connected(receiver.port) as delivering:
        for known in (asking, delivering):
            assert await known.ask(delivery(BODY)) is not None
        monkeypatch.setattr(connections, "REST", 60.0)
        monkeypatch.setattr(connections, "LONGEST_REST", 60.0)
        assert await ask(receiver.port, request()) is not None
        await asking.send(request())
        await eventually(lambda: receiver.server.connections.ahead == len(request()))
        for sent in (delivery(BODY), in_chunks()):
            answer = await delivering.ask(sent)
            assert answer is not None
            assert answer.status == 200
        assert receiver.server.connections.ahead == len(request())


LARGE = webhook("room.client.joined", room="/visit-1", id="large", metadata="m" * 5000).raw
WAITING = {
    "in chunks": request("POST", "/", [signature(LARGE), ("Transfer-Encoding", "chunked")])
    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE),
    "with a long head": request("POST", "/", [signature(LARGE), ("X-Amzn-Oidc-Data", "j" * 3000)], LARGE),
    "with a query": delivery(LARGE, path="/?from=whereby"),
}


@pytest.mark.parametrize("data", WAITING.values(), ids=WAITING)
async def test_a_delivery_that_would_wait_for_its_turn_gets_in_however_much_others_hold(
    receiver: Receiver, data: bytes
) -> None:
    """There was no room to hold it, and its connection was closed."""
    receiver.server.connections.ahead += connections.MAX_AHEAD
    try:
        answer = await ask(receiver.port, data)
    finally:
        receiver.server.connections.ahead -= connections.MAX_AHEAD
    assert answer is not None
    assert answer.status == 200
    assert [record.body for record in await receiver.records()] == [LARGE]


async def test_a_delivery_waits_for_no_turn_whatever_its_path_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source: RFC 3986, 3.3."""
    path = "/hooks/3f9a+x/y==:!$&'()*,;@é"
    async with Receiver(tmp_path, path=path) as receiver:
        monkeypatch.setattr(connections, "REST", 60.0)
        monkeypatch.setattr(connections, "LONGEST_REST", 60.0)
        assert await ask(receiver.port, request()) is not None
        answer = await ask(receiver.port, delivery(BODY, path=path.replace("é", "%C3%A9")))
        assert answer is not None
        assert answer.status == 200


async def test_what_can_be_no_delivery_and_finds_no_room_is_closed_unread(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read the first request of each of 1,000 such clients, which came again at once, took longer than a second."""
    parse = Mock()
    monkeypatch.setattr(Protocol, "_parse", parse)
    receiver.server.connections.ahead += connections.MAX_AHEAD
    async with connected(receiver.port) as connection:
        await connection.send(request("POST", "/elsewhere", [], b"x" * 3000))
        assert await connection.closed() < AT_ONCE
    receiver.server.connections.ahead -= connections.MAX_AHEAD
    assert not parse.called


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_ends_its_side_after_its_request_is_answered(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop], version: str
) -> None:
    """So does `printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' | nc -N`."""

    def look(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /livez HTTP/%b\r\n\r\n" % version.encode())
            client.shutdown(socket.SHUT_WR)
            return client.recv(1024)

    async def answers() -> list[bytes]:
        async with Receiver(tmp_path) as receiver:
            return [await asyncio.to_thread(look, receiver.port) for _ in range(20)]

    with asyncio.Runner(loop_factory=loop) as runner:
        assert {answer[:12] for answer in runner.run(answers())} == {b"HTTP/1.1 200"}


@pytest.mark.parametrize("sent", [in_chunks, lambda: request("GET", "/livez")], ids=["a delivery", "a health check"])
async def test_what_waits_for_its_turn_when_the_server_ends_is_still_answered(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, sent: Callable[[], bytes]
) -> None:
    monkeypatch.setattr(connections, "REST", 60.0)
    monkeypatch.setattr(connections, "LONGEST_REST", 60.0)
    async with connected(receiver.port) as first, connected(receiver.port) as second:
        assert await first.ask(request()) is not None
        await second.send(sent())
        await eventually(lambda: receiver.server.connections.ahead)
        async with asyncio.timeout(AT_ONCE):
            await receiver.server.close()
        answer = await second.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert [record.body for record in await receiver.records()] == ([BODY] if sent is in_chunks else [])
