"""The property: however requests follow each other and are cut, each is answered as if it were alone."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tests.support.http import SECRET, Connection, Headers, connected, request, signature
from tests.support.receiver import Receiver
from tests.support.until import eventually
from whereby_trigger.store import Query
from whereby_trigger.testing import webhook

numbers = itertools.count()
MAX_BODY = 80_000


class Running:
    """Run a receiver and its event loop for all the examples of a test."""

    def __init__(self, folder: Path, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.runner = asyncio.Runner(loop_factory=loop)
        self.receiver = Receiver(folder, max_body=MAX_BODY)
        self.runner.run(self.receiver.__aenter__())

    def end(self) -> None:
        self.runner.run(self.receiver.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module", params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(tmp_path_factory.mktemp("series"), request.param)
    yield one
    one.end()


class Asked(Struct, frozen=True):
    """Hold a request's bytes, the status of its answer, and the webhook that is stored then."""

    data: bytes
    status: int
    stores: tuple[str, bytes] | None = None
    closes: bool = False


OFFER = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAEAAEAA")]
EXPECT = [("Expect", "100-continue")]
CLOSE = [("Connection", "close")]
LONG = [("X", "y" * 3000)]
BLANKS = st.sampled_from([b"", b"\r\n\r\n", b"\r\n\r\n" * 30, b" " * 3000, b" " * 70_000])
"""What stands before a body's JSON: nothing, the end of a head, many of them, much."""

TABLE = [("POST", "/", 200)] * 3 + [
    ("POST", "/", 401),
    ("POST", "/?a=b", 200),
    ("POST", "/elsewhere", 404),
    ("GET", "/", 200),
    ("GET", "/elsewhere", 404),
    ("PUT", "/", 405),
]


def in_chunks(method: str, path: str, headers: Headers, body: bytes, size: int) -> bytes:
    head = request(method, path, [*headers, ("Transfer-Encoding", "chunked")])
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    id = f"series {next(numbers)}"
    body = draw(BLANKS) + webhook("room.client.joined", id=id).raw
    method, path, status = draw(st.sampled_from(TABLE))
    # One that is answered before its body has come and then closed may never hear its answer.
    may_close = method == "POST" and status != 404
    more = draw(st.sampled_from([[], [], OFFER, EXPECT, LONG, *([CLOSE] if may_close else [])]))
    headers = [*more, signature(body, secret="another" if status == 401 else SECRET)]
    how = draw(st.sampled_from(["by its length", "in chunks", *(["in HTTP/1.0"] if may_close else [])]))
    if method == "GET" and draw(st.booleans()):
        data = request(method, path, headers)
    elif how == "in chunks":
        data = in_chunks(method, path, headers, body, draw(st.sampled_from([1, 4, 50])) if len(body) < 1000 else 9000)
    else:
        data = request(method, path, headers, body)
    closes = more is CLOSE
    if how == "in HTTP/1.0" and more in ([], LONG):
        data, closes = data.replace(b"HTTP/1.1", b"HTTP/1.0", 1), True
    blank = draw(st.sampled_from([b"", b"\r\n"]))
    return Asked(blank + data, status, (id, body) if (method, status) == ("POST", 200) else None, closes)


async def _send(connection: Connection, data: bytes, cuts: list[tuple[int, float]]) -> None:
    start = 0
    for end, pause in sorted((at % (len(data) + 1), pause) for at, pause in cuts):
        await connection.send(data[start:end])
        start = end
        await asyncio.sleep(pause)
    await connection.send(data[start:])


async def _answers(connection: Connection, count: int) -> list[int | None]:
    statuses: list[int | None] = []
    while len(statuses) < count:
        answer = await connection.answer()
        if answer is None or answer.status != 100:
            statuses.append(None if answer is None else answer.status)
    return statuses


CUTS = st.lists(
    st.tuples(st.integers(0, 2000) | st.integers(0, 10**6), st.sampled_from([0, 0, 0.0005, 0.003])), max_size=8
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(series=st.lists(asked(), min_size=1, max_size=6), cuts=CUTS)
def test_whatever_follows_each_other_on_a_connection_is_answered_in_order_and_stored_whole(
    running: Running, series: list[Asked], cuts: list[tuple[int, float]]
) -> None:
    until_closed = [*itertools.takewhile(lambda one: not one.closes, series)]
    asked = series[: len(until_closed) + 1]

    async def converse() -> None:
        receiver = running.receiver
        async with connected(receiver.port) as connection:
            sending = asyncio.create_task(_send(connection, b"".join(one.data for one in asked), cuts))
            assert await _answers(connection, len(asked)) == [one.status for one in asked]
            if asked[-1].closes:
                assert await connection.answer() is None
            await sending
        for one in asked:
            if one.stores is not None:
                found = await receiver.store.find(Query(ids=(one.stores[0],)))
                assert [record.body for record in found] == [one.stores[1]]
        await eventually(lambda: not receiver.server.connections.connections)
        assert receiver.server.connections.ahead == 0

    running.runner.run(converse())
