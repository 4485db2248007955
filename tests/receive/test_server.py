"""The server: addresses it cannot use, HTTP of every kind, and an end that cuts off nobody."""

import asyncio
import gc
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.http import SECRET, Answer, Connection, ask, connected, delivery, request, signature
from tests.support.receiver import HeldStore, Receiver
from tests.support.until import AT_ONCE, eventually
from whereby_trigger import AddressError
from whereby_trigger.receive import bind, reserve
from whereby_trigger.receive.server import Protocol
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined", room="/visit-1", id="a1").raw


def test_a_busy_port_is_an_error_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            AddressError, match=f"port {port} is in use on 127.0.0.1: stop what listens there"
        ) as caught:
            bind("127.0.0.1", port)
    assert "--port or port=" in str(caught.value)


def test_a_reserved_port_is_nobody_elses_until_it_is_bound_and_a_taken_one_is_exchanged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port = reserve("127.0.0.1", taken)
        assert port != taken
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        with bind("127.0.0.1", port) as listener:
            assert listener.getsockname()[1] == port
            with pytest.raises(AddressError, match=f"port {port} is in use"):
                bind("127.0.0.1", port)
    with bind("127.0.0.1", reserve("127.0.0.1", taken)) as listener:
        assert listener.getsockname()[1] == taken


@pytest.mark.parametrize(
    "host", ["no-such-host.invalid", "192.0.2.1", "a b", "x" * 300, "local\0host", "1.2.3.4.5", "."]
)
def test_a_host_that_is_not_this_machine_is_an_error_with_a_way_out(host: str) -> None:
    with pytest.raises(AddressError, match=r"is not an address of this machine: use 127\.0\.0\.1 or 0\.0\.0\.0"):
        bind(host, 0)


PRIVILEGED = """
import encodings.idna, sys
from tests.support.unprivileged import become_nobody
from whereby_trigger.errors import AddressError
from whereby_trigger.receive import bind, reserve
if not become_nobody():
    sys.exit("no other user")
try:
    bind("127.0.0.1", 9)
except AddressError as error:
    sys.exit(str(error))
"""


def test_a_port_that_needs_more_rights_is_an_error_with_a_way_out() -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not first.exists() or int(first.read_text()) <= 9:
        pytest.skip("here every user may listen on every port")
    ended = subprocess.run(
        [sys.executable, "-c", PRIVILEGED], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    if "no other user" in ended.stderr:
        pytest.skip("root cannot become another user here, and may listen on every port")
    assert "port 9 needs more rights than this process has: choose one above 1023" in ended.stderr


def test_port_0_picks_one() -> None:
    with bind("127.0.0.1", 0) as one, bind("127.0.0.1", 0) as two:
        assert 0 < one.getsockname()[1] != two.getsockname()[1] > 0


async def test_requests_have_no_line_in_an_access_log(receiver: Receiver, log: Callable[[], str]) -> None:
    assert await ask(receiver.port, request(path="/livez")) is not None
    assert "/livez" not in log()


async def test_one_connection_serves_many_requests(receiver: Receiver) -> None:
    async with connected(receiver.port) as connection:
        for n in range(5):
            body = webhook("room.client.joined", id=str(n)).raw
            assert await connection.ask(delivery(body)) == Answer(200, {"content-length": "0"}, b"")
        assert await connection.ask(request("GET", "/x")) == Answer(404, {"content-length": "0"}, b"")
        assert await connection.ask(request("PUT", "/", [], b"not read")) is not None
        assert await connection.ask(delivery(JOINED)) is not None
    assert len(await receiver.records()) == 6


async def test_requests_sent_without_waiting_are_answered_in_order(receiver: Receiver) -> None:
    bodies = [webhook("room.client.joined", id=str(n)).raw for n in range(3)]
    async with connected(receiver.port) as connection:
        await connection.send(delivery(bodies[0]) + request("GET", "/x") + delivery(bodies[1]) + delivery(bodies[2]))
        answers = [await connection.answer() for _ in range(4)]
    assert [answer and answer.status for answer in answers] == [200, 404, 200, 200]
    assert [record.id for record in await receiver.records()] == ["0", "1", "2"]


async def test_a_body_that_comes_in_pieces_is_stored_whole(receiver: Receiver) -> None:
    data = delivery(JOINED)
    async with connected(receiver.port) as connection:
        for start in range(0, len(data), 100):
            await connection.send(data[start : start + 100])
            await asyncio.sleep(0)
        answer = await connection.answer()
    assert answer == Answer(200, {"content-length": "0"}, b"")
    assert [record.body for record in await receiver.records()] == [JOINED]


@pytest.mark.parametrize("secret", [SECRET, "another"])
async def test_who_wants_its_connection_closed_is_answered_and_has_it_closed(receiver: Receiver, secret: str) -> None:
    body = webhook("room.client.joined", room="/visit-1").raw
    asking = request("POST", "/", [signature(body, secret=secret), ("Connection", "close")], body)
    async with connected(receiver.port) as connection:
        answer = await connection.ask(asking)
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (200 if secret == SECRET else 401, "close")
        assert await connection.closed() < AT_ONCE


async def test_who_hangs_up_before_its_body_is_there_or_its_answer_leaves_no_place_taken(receiver: Receiver) -> None:
    data = delivery(JOINED)
    async with connected(receiver.port) as connection:
        await connection.send(data[:-10])
        await eventually(lambda: receiver.edge.arriving.bytes)
    async with connected(receiver.port) as connection:
        await connection.send(data)
    edge = receiver.edge
    await eventually(lambda: edge.in_flight.requests == edge.in_flight.bytes == edge.arriving.bytes == 0)
    assert not edge.arriving.bodies


async def test_who_asks_first_is_told_to_go_on_unless_it_is_too_much(receiver: Receiver) -> None:
    expecting = [signature(JOINED), ("Expect", "100-continue")]
    async with connected(receiver.port) as connection:
        first = await connection.ask(request("POST", "/", [*expecting, ("Content-Length", str(len(JOINED)))]))
        assert first is not None
        assert first.status == 100
        last = await connection.ask(JOINED)
        assert last is not None
        assert last.status == 200
    too_much = await ask(receiver.port, request("POST", "/", [*expecting, ("Content-Length", "300000")]))
    assert too_much is not None
    assert too_much.status == 413


async def test_http_1_0_is_spoken(receiver: Receiver) -> None:
    data = delivery(JOINED).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    async with connected(receiver.port) as connection:
        answer = await connection.ask(data)
        assert answer is not None
        assert answer.status == 200
        assert await connection.closed() < AT_ONCE


async def test_who_wants_another_protocol_is_answered_in_this_one(receiver: Receiver) -> None:
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x"), signature(JOINED)]
    answer = await ask(receiver.port, request("GET", "/", upgrade))
    assert answer is not None
    assert answer.status == 200


OFFERS = {
    "a JDK client": [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAA")],
    "curl --http2": [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")],
    "a websocket": [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")],
    "TLS": [("Upgrade", "TLS/1.2"), ("Connection", "upgrade")],
    "several": [("Connection", "Upgrade"), ("Upgrade", "h2c, websocket"), ("Upgrade", "TLS/1.3")],
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("segments", [1, 2, 300])
async def test_an_offer_of_another_protocol_is_ignored_and_the_delivery_taken(
    receiver: Receiver, offer: list[tuple[str, str]], segments: int
) -> None:
    """Source: RFC 9110, 7.8."""
    data, body = delivery(JOINED, headers=offer), JOINED
    step = -(-len(data) // segments)
    cut = len(data) - len(body) if segments == 2 else step
    async with connected(receiver.port) as connection:
        for _ in range(2):
            for start in range(0, len(data), cut):
                await connection.send(data[start : start + cut])
                await asyncio.sleep(0)
            assert await connection.answer() == Answer(200, {"content-length": "0"}, b"")
    assert [record.body for record in await receiver.records()] == [JOINED]


async def test_an_offer_is_ignored_for_a_body_in_chunks_and_for_a_large_one_too(receiver: Receiver) -> None:
    offer = OFFERS["a JDK client"]
    in_chunks = request("POST", "/", [signature(JOINED), *offer, ("Transfer-Encoding", "chunked")])
    in_chunks += b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOINED), JOINED)
    large = webhook("room.client.joined", id="large", metadata="x" * 100_000).raw
    async with connected(receiver.port) as connection:
        for data in (in_chunks, delivery(large, headers=offer), delivery(JOINED)):
            answer = await connection.ask(data)
            assert answer is not None
            assert answer.status == 200
    assert [record.id for record in await receiver.records()] == ["a1", "large"]


@pytest.mark.parametrize("pad", ["{} ", "{}\t", "{} \t ", "  \t{}"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["by its length", "in chunks"])
async def test_whitespace_around_a_headers_value_is_no_part_of_it(
    receiver: Receiver, pad: str, in_chunks: bool
) -> None:
    """Source: RFC 9110, 5.5."""
    name, value = signature(JOINED)
    fields = [(name, pad.format(value))]
    if in_chunks:
        data = request("POST", "/", [*fields, ("Transfer-Encoding", "chunked")])
        data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOINED), JOINED)
    else:
        data = request("POST", "/", [*fields, ("Content-Length", pad.format(len(JOINED)))]) + JOINED
    answer = await ask(receiver.port, data)
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize("together", [True, False], ids=["in one segment", "in two"])
async def test_a_signature_in_a_trailer_is_none(receiver: Receiver, together: bool) -> None:
    name, value = signature(JOINED)
    head = request("POST", "/", [("Trailer", name), ("Transfer-Encoding", "chunked")])
    rest = b"%x\r\n%b\r\n0\r\n%b: %b\r\n\r\n" % (len(JOINED), JOINED, name.encode(), value.encode())
    async with connected(receiver.port) as connection:
        for data in [head + rest] if together else [head, rest]:
            await connection.send(data)
            await asyncio.sleep(0)
        answer = await connection.answer()
        assert answer is not None
        assert answer.status == 401
        assert await connection.ask(delivery(JOINED)) is not None


async def test_what_is_sent_ahead_is_cut_where_a_request_ends_however_it_is_segmented(receiver: Receiver) -> None:
    chunked = request("POST", "/", [signature(JOINED), ("Transfer-Encoding", "chunked")])
    chunked += b"%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (len(JOINED), JOINED)
    data = (b"\r\n" + request() + chunked + delivery(JOINED) + request("GET", "/x") + chunked) * 2
    for size in (1, 3, 7, 1000):
        async with connected(receiver.port) as connection:
            sending = asyncio.create_task(_send_in_pieces(connection, data, size))
            answers = [await connection.answer() for _ in range(10)]
            await sending
        assert [answer and answer.status for answer in answers] == [200, 200, 200, 404, 200] * 2


async def _send_in_pieces(connection: Connection, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        await connection.send(data[start : start + size])
        await asyncio.sleep(0)


NONSENSE = {
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "no path": b"GET HTTP/1.1\r\n\r\n",
    "a path with raw bytes": b"GET /\xff\xc3 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a proxy's request": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown method": b"STEAL / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n",
    "a negative length": request("POST", "/", [("Content-Length", "-1")]),
    "a length that is no number": request("POST", "/", [("Content-Length", "ten")]),
    "a length beyond 64 bits": request("POST", "/", [("Content-Length", "9" * 30)]),
    "two lengths": request("POST", "/", [("Content-Length", "1"), ("Content-Length", "2")]),
    "a length and chunks": request("POST", "/", [("Content-Length", "1"), ("Transfer-Encoding", "chunked")]) + b"x",
    "chunks that are none": request("POST", "/", [("Transfer-Encoding", "chunked")]) + b"xyz\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "only line ends": b"\r\n" * 100,
}


async def test_nonsense_is_answered_4xx_or_hung_up_on_and_the_server_lives(
    receiver: Receiver, log: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.receive.server.REQUEST_WITHIN", 1.5)
    answers = await asyncio.gather(*(ask(receiver.port, data) for data in NONSENSE.values()))
    for name, answer in zip(NONSENSE, answers, strict=True):
        assert answer is None or 400 <= answer.status < 500 or name in ("a folded header", "a bare line feed"), name
    assert await ask(receiver.port, request()) == Answer(200, {"content-length": "0"}, b"")
    assert await receiver.records() == []
    assert "Traceback" not in log()
    assert "ERROR" not in log()


FLOODS = {
    "many headers": [(f"X-{n:05d}", "y" * 50) for n in range(2000)],
    "one long header": [("X", "y" * 70_000)],
    "one long name": [("X" * 70_000, "y")],
}


@pytest.mark.parametrize("headers", FLOODS.values(), ids=FLOODS)
async def test_more_headers_than_64_kib_are_hung_up_on(receiver: Receiver, headers: list[tuple[str, str]]) -> None:
    async with connected(receiver.port) as connection:
        answer = await connection.ask(request("POST", "/", [signature(JOINED), *headers], JOINED))
        assert answer is None or answer.status == 400
        await connection.closed()
    assert await receiver.records() == []


async def test_more_than_a_thousand_headers_are_refused_before_they_fill_the_memory(receiver: Receiver) -> None:
    """In memory, each tiny one takes about a hundred bytes: 64 KiB of them took more than a megabyte."""
    answer = await ask(receiver.port, b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 10_000)
    assert answer is not None
    assert answer.status == 400
    answer = await ask(receiver.port, request("GET", "/", [("a", "")] * 900))
    assert answer is not None
    assert answer.status == 200


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nX: ",
        b"GET / HTTP/1.1\r\nX",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["a path", "a header", "a header's name", "a trailer", "a chunk's extension"],
)
async def test_what_does_not_end_is_hung_up_on_before_it_fills_the_memory(receiver: Receiver, start: bytes) -> None:
    sent = 0
    async with connected(receiver.port) as connection:
        await connection.send(start)
        while not connection.hung_up and sent < 10_000_000:
            await connection.send(b"x" * 10_000)
            sent += 10_000
    assert sent < 10_000_000


async def test_a_great_request_that_is_in_order_is_not_mistaken_for_a_flood(receiver: Receiver) -> None:
    headers = [(f"X-{n:03d}", "y" * 100) for n in range(400)]
    body = b"\xff" * 250_000
    async with connected(receiver.port) as connection:
        for _ in range(3):
            answer = await connection.ask(request("POST", "/", [signature(body), *headers], body))
            assert answer is not None
            assert answer.status == 200


async def test_at_its_end_the_server_lets_running_requests_finish(tmp_path: Path) -> None:
    async with Receiver(tmp_path, store=HeldStore) as receiver:
        assert isinstance(receiver.store, HeldStore)
        store = receiver.store
        async with connected(receiver.port) as connection:
            await connection.send(delivery(JOINED))
            await eventually(lambda: store.asked)
            closing = asyncio.create_task(receiver.server.close())
            await eventually(lambda: refuses(receiver.port))
            store.go.set()
            answer = await connection.answer()
            assert answer is not None
            assert answer.status == 200
            await closing
        assert len(await receiver.records()) == 1


async def test_at_its_end_the_server_hangs_up_on_requests_that_do_not_come_to_theirs(
    tmp_path: Path, log: Callable[[], str]
) -> None:
    async with Receiver(tmp_path) as receiver, connected(receiver.port) as idle, connected(receiver.port) as stalled:
        assert await idle.ask(request()) is not None
        await stalled.send(delivery(JOINED)[:-10])
        await eventually(lambda: receiver.edge.arriving.bytes)
        async with asyncio.timeout(AT_ONCE):
            await receiver.server.close(0.3)
        assert await stalled.answer() is None
        assert await idle.closed() < AT_ONCE
        assert await receiver.records() == []
    assert "Traceback" not in log()
    assert "ERROR" not in log()


@pytest.mark.parametrize("last", [request, lambda: delivery(JOINED)], ids=["a look", "a delivery"])
async def test_a_connection_on_which_no_more_comes_is_closed(receiver: Receiver, last: Callable[[], bytes]) -> None:
    receiver.server.config.timeout_keep_alive = 1
    async with connected(receiver.port) as connection:
        for sent in (delivery(JOINED), last()):
            answer = await connection.ask(sent)
            assert answer is not None
            assert answer.status == 200
        assert await connection.closed() < 4


async def test_a_load_balancer_is_the_first_to_close_an_idle_connection(receiver: Receiver) -> None:
    """Source: Google Cloud docs, backend keepalive timeout, 600 s; AWS docs, connection idle timeout, 60 s."""
    async with connected(receiver.port) as connection:
        assert await connection.ask(delivery(JOINED)) is not None
        (protocol,) = receiver.server.server_state.connections
        assert isinstance(protocol, Protocol)
        answered = asyncio.get_running_loop().time()
        protocol.close_if_stalled(answered + 600)
        assert await connection.ask(delivery(JOINED)) is not None
        protocol.close_if_stalled(answered + 640)
        assert await connection.closed() < AT_ONCE


async def test_of_too_many_idle_connections_those_that_are_idle_for_longest_are_closed(receiver: Receiver) -> None:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(receiver.port)) for _ in range(5)]
        for connection in connections:
            assert await connection.ask(delivery(JOINED)) is not None
        receiver.server.connections.max_connections = 2
        for connection in connections[:3]:
            assert await connection.closed() < AT_ONCE
        for connection in connections[3:]:
            assert await connection.ask(delivery(JOINED)) is not None


async def test_a_connection_that_ended_is_forgotten_without_a_collection(receiver: Receiver) -> None:
    gc.disable()
    try:
        async with connected(receiver.port) as connection:
            assert await connection.ask(delivery(JOINED)) is not None
            (protocol,) = map(weakref.ref, receiver.server.server_state.connections)
        await eventually(lambda: protocol() is None)
    finally:
        gc.enable()


async def refuses(port: int) -> bool:
    try:
        await ask(port, request())
    except ConnectionError:
        return True
    return False
