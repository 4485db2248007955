"""Connections without a signed request: what they may use, for how long, and which are closed first."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from tests.support.http import Connection, ask, connected, delivery, request, signature
from tests.support.receiver import HeldStore, PingedStore, Receiver
from tests.support.until import AT_ONCE, eventually
from whereby_trigger.inspector.live import PAGES
from whereby_trigger.receive import bind, connections, server
from whereby_trigger.receive.connections import Connections
from whereby_trigger.receive.receiver import Arriving
from whereby_trigger.receive.server import Protocol
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

BODY = webhook("room.client.joined", room="/visit-1", id="a1").raw
LOOK = b"GET / HTTP/1.1\r\n\r\n"
KIB = 1024


def with_a_length() -> bytes:
    return delivery(BODY)


def in_chunks() -> bytes:
    head = request("POST", "/", [signature(BODY), ("Transfer-Encoding", "chunked")])
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def in_http_1_0() -> bytes:
    """Return what nginx sends by default."""
    return delivery(BODY).replace(b"HTTP/1.1", b"HTTP/1.0")


def protocols(receiver: Receiver) -> list[Protocol]:
    return [one for one in receiver.server.connections.all if isinstance(one, Protocol)]


@asynccontextmanager
async def silent(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """Open connections that send nothing."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port)) for _ in range(count)]


@asynccontextmanager
async def pouring(port: int, requests: int) -> AsyncIterator[socket.socket]:
    """Send `requests` requests on one connection without reading an answer."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        task = asyncio.create_task(loop.sock_sendall(client, LOOK * requests))
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_however_much_is_sent_ahead_one_request_at_a_time_is_taken_up(receiver: Receiver, method: str) -> None:
    most = 0
    data = f"{method} /livez HTTP/1.1\r\n\r\n".encode() * 1000
    async with connected(receiver.port) as connection:
        await connection.send(data)
        for _ in range(1000):
            assert await connection.answer() is not None
            most = max(most, len(receiver.server.server_state.tasks))
            assert all(not one.pipeline for one in protocols(receiver))
    assert most <= 2


async def test_a_sender_that_takes_no_answers_is_not_read_from(receiver: Receiver) -> None:
    async with pouring(receiver.port, 1_000_000):
        await eventually(lambda: any(one.flow.write_paused for one in protocols(receiver)))
        (protocol,) = protocols(receiver)
        assert protocol.transport.get_write_buffer_size() < 2 * server.UNSENT
        assert protocol.flow.read_paused
        assert receiver.server.connections.ahead <= 512 * KIB
        answer = await ask(receiver.port, delivery(BODY))
        assert answer is not None
        assert answer.status == 200


async def test_who_takes_no_answers_for_10_s_is_hung_up_on(receiver: Receiver) -> None:
    async with pouring(receiver.port, 1_000_000):
        await eventually(lambda: any(one.flow.write_paused for one in protocols(receiver)))
        (protocol,) = protocols(receiver)
        now = asyncio.get_running_loop().time()
        protocol.close_if_stalled(now)
        protocol.close_if_stalled(now + 8)
        assert not protocol.transport.is_closing()
        protocol.close_if_stalled(now + 10)
        await eventually(lambda: not protocols(receiver))
    assert receiver.server.connections.ahead == 0


async def test_answers_that_are_taken_late_are_all_there(receiver: Receiver) -> None:
    requests, answer = 5000, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with pouring(receiver.port, requests) as client:
        await eventually(lambda: any(one.flow.write_paused for one in protocols(receiver)))
        # Otherwise the kernel waits 40 ms for each few KiB, and a busy machine so long that the connection is closed.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * KIB)
        left = requests * len(answer)
        while left:
            data = await asyncio.get_running_loop().sock_recv(client, 64 * KIB)
            assert data, left
            left -= len(data)
    await eventually(lambda: not protocols(receiver))


async def test_what_all_send_ahead_is_bounded_together(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str]
) -> None:
    monkeypatch.setattr(connections, "MAX_AHEAD", 100 * KIB)
    async with AsyncExitStack() as stack:
        for _ in range(20):
            connection = await stack.enter_async_context(connected(receiver.port))
            await connection.send(LOOK * 1500)
        await eventually(lambda: "closed" in log())
        assert receiver.server.connections.ahead <= 100 * KIB
    await eventually(lambda: receiver.server.connections.ahead == 0)


async def test_a_health_check_is_answered_however_much_others_send_ahead(receiver: Receiver) -> None:
    receiver.server.connections.ahead += connections.MAX_AHEAD
    assert await ask(receiver.port, request("GET", "/livez", [("User-Agent", "kube-probe/1.31")])) is not None
    async with connected(receiver.port) as connection:
        await connection.send(LOOK * 1000)
        await connection.closed()
    receiver.server.connections.ahead -= connections.MAX_AHEAD


class Schedule:
    """Stand in for a loop: keep what is to be called, and after how many seconds."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], object]]] = []

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self.call_later(0, callback, *arguments)

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> None:
        self.calls.append((delay, partial(callback, *arguments)))


class Asking:
    """Stand in for a connection that always has more requests ahead."""

    is_known = is_served = False
    usefulness = (False, 0.0)
    give_way = close_if_stalled = Mock()

    def __init__(self, shared: Connections, schedule: Schedule) -> None:
        self.loop = cast(asyncio.AbstractEventLoop, schedule)
        self.has_left = False
        self.transport: asyncio.Transport = Mock(is_closing=lambda: self.has_left)
        self._shared = shared
        self.went_on = 0

    def go_on(self) -> bool:
        if self.has_left:
            return False
        self.went_on += 1
        self._shared.go_on_later(self)
        return True


def test_strangers_take_turns_and_the_loop_rests_between_them() -> None:
    """Beside a loop that never rests, the thread of the store runs once in 5 ms: a commit took more than a second."""
    schedule, shared = Schedule(), Connections()
    strangers = [Asking(shared, schedule) for _ in range(3 * connections.STRANGERS_A_TURN)]
    for stranger in strangers:
        shared.go_on_later(stranger)
    for turn in range(6):
        ((delay, call),) = schedule.calls
        assert delay >= (connections.REST if turn else 0)
        schedule.calls.clear()
        call()
        assert sum(one.went_on for one in strangers) == (turn + 1) * connections.STRANGERS_A_TURN
    assert {one.went_on for one in strangers} == {2}


def test_the_next_turn_of_strangers_comes_after_as_long_as_the_last_one_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.25])
    monkeypatch.setattr(connections, "time", Mock(monotonic=lambda: next(now)))
    schedule, shared = Schedule(), Connections()
    shared.go_on_later(Asking(shared, schedule))
    (_, call) = schedule.calls.pop()
    call()
    assert schedule.calls[0][0] == 0.25


def test_a_stranger_that_has_more_to_do_waits_for_its_next_turn() -> None:
    schedule, shared = Schedule(), Connections()
    alone = Asking(shared, schedule)
    shared.go_on_later(alone)
    for turn in range(3):
        (_, call) = schedule.calls.pop()
        call()
        assert alone.went_on == turn + 1


def test_a_stranger_that_has_left_takes_nobodys_turn() -> None:
    schedule, shared = Schedule(), Connections()
    leaving = [Asking(shared, schedule) for _ in range(100)]
    staying = Asking(shared, schedule)
    for one in [*leaving, staying]:
        shared.go_on_later(one)
    for one in leaving:
        one.has_left = True
    (_, call) = schedule.calls.pop()
    call()
    assert staying.went_on == 1


async def test_connections_that_come_together_are_looked_through_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is at all of them: one for each took seconds with 3,000."""
    looks = 0
    is_served = cast(property, Protocol.is_served).fget
    assert is_served is not None

    def count(self: Protocol) -> bool:
        nonlocal looks
        looks += 1
        return bool(is_served(self))

    monkeypatch.setattr(Protocol, "is_served", property(count))
    receiver.server.connections.max_connections = 20
    with ExitStack() as stack:
        for _ in range(200):
            # Without a turn of the loop between them.
            stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
        await eventually(lambda: 0 < len(protocols(receiver)) <= 20)
    assert 180 <= looks < 4 * 200


@pytest.mark.parametrize("fields", [[], [("Connection", "close")]], ids=["kept alive", "closed"])
async def test_a_body_in_thousands_of_chunks_takes_turns_and_is_taken_whole(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, fields: list[tuple[str, str]]
) -> None:
    """Each piece costs a call to the parser: 64 KiB in chunks of two bytes held up the loop for 0.1 s."""
    body = b"\r\n\r\n" * 2000 + BODY
    chunks = b"".join(b"4\r\n%b\r\n" % body[start : start + 4] for start in range(0, 8000, 4))
    chunks += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    in_a_turn = most = 0
    parse = Protocol._parse

    def count(self: Protocol, piece: bytes) -> bool:
        nonlocal in_a_turn, most
        in_a_turn += 1
        most = max(most, in_a_turn)
        return parse(self, piece)

    async def turns() -> None:
        nonlocal in_a_turn
        while True:
            in_a_turn = 0
            await asyncio.sleep(0)

    monkeypatch.setattr(Protocol, "_parse", count)
    counting = asyncio.create_task(turns())
    head = request("POST", "/", [signature(body), ("Transfer-Encoding", "chunked"), *fields])
    answer = await ask(receiver.port, head + chunks)
    counting.cancel()
    assert answer is not None
    assert answer.status == 200
    assert [record.id for record in await receiver.records()] == ["a1"]
    assert most <= 2 * server.PIECES


async def test_deliveries_sent_ahead_wait_for_the_store_and_are_answered_in_order(tmp_path: Path) -> None:
    async with Receiver(tmp_path, store=HeldStore) as receiver, connected(receiver.port) as connection:
        assert isinstance(receiver.store, HeldStore)
        store = receiver.store
        bodies = [webhook("room.client.joined", id=str(n)).raw for n in range(5)]
        await connection.send(b"".join(map(delivery, bodies)))
        await eventually(lambda: store.asked == 1)
        assert await ask(receiver.port, request()) is not None
        assert store.asked == 1
        store.go.set()
        for _ in bodies:
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 200
        assert [record.id for record in await receiver.records()] == ["0", "1", "2", "3", "4"]


async def test_a_body_that_is_announced_and_does_not_come_takes_no_memory_and_no_place(receiver: Receiver) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(300):
            connection = await stack.enter_async_context(connected(receiver.port))
            await connection.send(request("POST", "/", [signature(b""), ("Content-Length", str(64 * KIB))]))
        await eventually(lambda: len([one for one in protocols(receiver) if one.cycle is not None]) == 300)
        assert receiver.edge.in_flight.requests == receiver.edge.in_flight.bytes == receiver.edge.arriving.bytes == 0
        assert (await ask(receiver.port, delivery(BODY))) is not None
    assert len(await receiver.records()) == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("PUT", "/"), ("POST", "/elsewhere")])
async def test_a_body_that_nobody_reads_takes_no_memory(receiver: Receiver, method: str, path: str) -> None:
    async with connected(receiver.port) as connection:
        # Together with its head, so that it is there before the answer.
        data = request(method, path, [("Content-Length", "100000")]) + b"x" * 60_000
        assert await connection.ask(data) is not None
        (protocol,) = protocols(receiver)
        assert not protocol.cycle.body


@pytest.mark.parametrize("sent", [with_a_length, in_chunks, lambda: request("POST", "/", [], BODY), lambda: LOOK])
async def test_a_request_takes_no_memory_after_its_answer(receiver: Receiver, sent: Callable[[], bytes]) -> None:
    async with connected(receiver.port) as connection:
        for _ in range(2):
            assert await connection.ask(sent()) is not None
            (protocol,) = protocols(receiver)
            assert protocol.cycle is None
            assert not protocol.headers


async def test_a_body_of_a_request_that_has_none_is_dropped_while_its_answer_waits(tmp_path: Path) -> None:
    async with Receiver(tmp_path, store=PingedStore) as receiver, connected(receiver.port) as connection:
        assert isinstance(receiver.store, PingedStore)
        store = receiver.store
        await connection.send(request("GET", "/readyz", [("Content-Length", "100000")]) + b"x" * 60_000)
        await eventually(lambda: store.pings > 0)
        (protocol,) = protocols(receiver)
        assert not protocol.cycle.response_complete
        assert not protocol.cycle.body
        store.go.set()
        assert await connection.answer() is not None


async def test_of_bodies_that_do_not_end_the_first_gives_way_and_a_signed_delivery_gets_in(receiver: Receiver) -> None:
    receiver.edge.arriving = Arriving(1024 * KIB)
    head = request("POST", "/", [("Content-Length", str(64 * KIB))])
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(20):
            connection = await stack.enter_async_context(connected(receiver.port))
            await connection.send(head + b"x" * (64 * KIB - 1))
            connections.append(connection)
        for connection in connections[:3]:
            answer = await connection.answer()
            assert answer is not None
            assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert receiver.edge.arriving.bytes <= 1024 * KIB
        answer = await ask(receiver.port, delivery(BODY))
        assert answer is not None
        assert answer.status == 200
    await eventually(lambda: receiver.edge.arriving.bytes == 0)
    assert not receiver.edge.arriving.bodies


@pytest.mark.parametrize("sent", [with_a_length, in_chunks])
async def test_of_too_many_connections_the_silent_ones_give_way_and_are_told_of_once(
    receiver: Receiver, log: Callable[[], str], sent: Callable[[], bytes]
) -> None:
    receiver.server.connections.max_connections = 10
    async with connected(receiver.port) as known:
        assert await known.ask(sent()) is not None
        async with silent(receiver.port, 50) as strangers:
            await eventually(lambda: len(protocols(receiver)) <= 10)
            for stranger in strangers[:41]:
                assert await stranger.closed() < AT_ONCE
            answer = await ask(receiver.port, delivery(BODY))
            assert answer is not None
            assert answer.status == 200
            answer = await known.ask(delivery(BODY))
            assert answer is not None
            assert answer.status == 200
    assert log().count("connections that brought nothing") == 1


@pytest.mark.parametrize("sent", [with_a_length, in_chunks, in_http_1_0])
async def test_a_delivery_that_waits_for_the_store_does_not_give_way(tmp_path: Path, sent: Callable[[], bytes]) -> None:
    async with Receiver(tmp_path, store=HeldStore) as receiver, connected(receiver.port) as connection:
        assert isinstance(receiver.store, HeldStore)
        store = receiver.store
        receiver.server.connections.max_connections = 2
        await connection.send(sent())
        await eventually(lambda: store.asked == 1)
        async with silent(receiver.port, 10):
            await eventually(lambda: len(protocols(receiver)) <= 2)
            store.go.set()
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 200


async def test_a_trickle_of_bytes_does_not_make_a_connection_more_useful_than_silence(receiver: Receiver) -> None:
    receiver.server.connections.max_connections = 5
    async with silent(receiver.port, 5) as trickling:
        for connection in trickling:
            await connection.send(b"G")
        async with silent(receiver.port, 5) as later:
            for connection in trickling:
                await connection.send(b"E")
            for connection in trickling:
                assert await connection.closed() < AT_ONCE
            for connection in later:
                assert await connection.ask(delivery(BODY)) is not None


async def test_a_connection_that_was_answered_before_its_body_came_is_closed_when_idle(receiver: Receiver) -> None:
    async with connected(receiver.port) as connection:
        answer = await connection.ask(request("POST", "/elsewhere", [("Content-Length", "5")]))
        assert answer is not None
        assert answer.status == 404
        await connection.send(b"hello")
        (protocol,) = protocols(receiver)
        await eventually(lambda: protocol.awaited_since is None)
        assert not protocol.usefulness < (False, protocol.loop.time() - 60)
        protocol.close_if_stalled(protocol.loop.time() + server.IDLE_WITHIN + 1)
        assert await connection.closed() < AT_ONCE


@pytest.mark.parametrize("files", [1024, 4096, 1_000_000])
async def test_the_ports_beside_that_of_the_webhooks_leave_files_to_it_and_to_the_store(
    monkeypatch: pytest.MonkeyPatch, files: int, receiver: Receiver
) -> None:
    """Each kept half of the files: who filled two of them kept deliveries out, and left none to the store."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    apps = cast(server.App, receiver.server.config.app), Mock()
    taking, beside = (server.Server(app, bind("127.0.0.1", 0)) for app in apps)
    try:
        most, less = taking.connections.max_connections, beside.connections.max_connections
        assert PAGES < less < most
        assert most + 2 * less <= files * 3 // 4
    finally:
        await taking.close()
        await beside.close()
