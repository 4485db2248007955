"""Tables 2 and 3 in tiny doses, and their behaviour if a delivery is not answered or not emitted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.bodies import bodies
from bench.load import LoadFailed
from bench.open_loop import Delivery, Latencies, OpenLoop, doubts
from bench.programs import Notes
from bench.sides import NAMES, PEER, POSTGRES, SQLITE, Setting, Side
from bench.tables import bursts, latency
from tests.support.serving import serving
from tests.support.tools import skip_without
from tests.support.until import eventually

pytestmark = pytest.mark.anyio

ANSWERED = Delivery("a", due=1.0, sent=1.5, first=True, answered=2.0)


@pytest.mark.parametrize("side", [PEER, SQLITE, POSTGRES])
async def test_latency_is_measured_to_the_answer_and_to_the_listener(setting: Setting, side: Side) -> None:
    if side == PEER:
        skip_without("node", "npm")
    rounds = 2 if side == SQLITE else 1
    dose = latency.Dose(per_second=50, seconds=0.8 / rounds, rounds=rounds, sides=(side,))
    outcome = await latency.run(setting, dose)
    assert outcome.problems == []
    ((name, deliveries, *figures),) = outcome.grids[0].rows
    assert (name, deliveries) == (NAMES[side], 40)
    assert len(figures) == 6
    assert all(float(str(figure)) >= 0 for figure in figures)
    assert [verdict.target for verdict in outcome.verdicts] == ([latency.HEARD_TARGET] if side == SQLITE else [])


@pytest.mark.parametrize("side", [SQLITE, POSTGRES])
async def test_a_load_and_bursts_are_answered_decided_and_counted(setting: Setting, side: Side) -> None:
    dose = bursts.Dose(per_second=100, seconds=0.5, duplicates=0.5, burst=30, bursts=2, sides=(side,))
    outcome = await bursts.run(setting, dose)
    assert outcome.problems == []
    load, burst = (grid.rows[0] for grid in outcome.grids)
    name, deliveries, duplicates, refused, *_ = load
    assert (name, deliveries, refused) == (NAMES[side], 50, 0)
    assert 0 < int(str(duplicates)) < 50
    assert burst[-1] == 0
    answered, _, decided, _ = (float(str(figure)) for figure in burst[1:-1])
    assert 0 <= answered <= decided


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """Serve on a port: answer one request on each connection, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serving(serve) as port:
        yield port


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer) as port, OpenLoop(port, bodies()) as sender:
        first = await sender.evenly(per_second=1, seconds=1)
        await eventually(lambda: not sender.sender.open_connections)
        second = await sender.evenly(per_second=1, seconds=1)
    assert [delivery.refusal for delivery in first + second] == [None, None]


async def test_a_refusal_is_noted_with_the_answer() -> None:
    async with answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as port, OpenLoop(port, bodies()) as sender:
        (delivery,) = await sender.at_once(1)
    assert delivery.refusal == "HTTP/1.1 503 Service Unavailable"
    with pytest.raises(LoadFailed, match="503"):
        Latencies().add([delivery], Notes(0))


def test_a_delivery_that_no_listener_heard_of_spoils_the_figures() -> None:
    with pytest.raises(LoadFailed, match="listener"):
        Latencies().add([ANSWERED], Notes(0))


def test_times_run_from_the_sending_and_a_sender_that_was_late_is_named() -> None:
    latencies = Latencies()
    latencies.add([ANSWERED], Notes(1, {"a": 3_500_000_000}))
    assert (latencies.answered, latencies.heard) == ([500.0], [2000.0])
    assert doubts({SQLITE: latencies}) == ["SQLite: 1 % of the deliveries were sent 500 ms late or more"]
