"""A process that is out of threads, files or memory for a while keeps what came, says so, and continues afterwards."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.promise.conftest import NewStore
from tests.promise.served import Served
from tests.support.http import Connection, connected, delivery, request
from tests.support.until import eventually
from tests.support.whereby import SECRET
from whereby_trigger.store import Room, RoomState, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")]

BACK_WITHIN = 5.0
REQUESTED = webhook("assistant.requested", id="requested", room="/visit-1").raw
JOINED = webhook("room.client.joined", id="joined", room="/visit-2").raw
LEFT = webhook("room.client.left", id="left", room="/visit-3").raw


@asynccontextmanager
async def running(
    store: str, what: str, assistant: str = "none", timeout: str = "10"
) -> AsyncIterator[tuple[Served, Connection]]:
    with Served("short_of", store, arguments=(what, assistant), WHEREBY_TRIGGER_PREDICATE_TIMEOUT=timeout) as program:
        async with connected(program.answers_on) as connection:
            assert await is_ready(connection)
            # A store may connect for a room only when it needs to.
            for number in range(1, 4):
                knocked = webhook("room.client.knocked", id=f"knocked-{number}", room=f"/visit-{number}")
                await send(connection, knocked.raw)
            await asyncio.to_thread(program.decided, 3)
            yield program, connection


async def is_ready(connection: Connection) -> bool:
    answer = await connection.ask(request("GET", "/readyz"))
    assert answer is not None
    return answer.status == 200


async def send(connection: Connection, body: bytes) -> None:
    answer = await connection.ask(delivery(body, secret=SECRET))
    assert answer is not None
    assert answer.status == 200


def tell(program: Served, number: signal.Signals, line: str) -> None:
    program.popen.send_signal(number)
    program.line(line)


async def rooms_of(program: Served) -> list[Room]:
    store = store_for(program.store)
    await store.open_readonly()
    try:
        return await store.rooms()
    finally:
        await store.close()


async def states_in(program: Served, states: list[State]) -> bool:
    return [record.state for record in await asyncio.to_thread(program.records)][3:] == states


@pytest.mark.parametrize(("what", "assistant"), [("files", "command"), ("files", "coroutine"), ("memory", "coroutine")])
async def test_an_assistant_that_finds_none_left_fails_for_nothing_and_starts_when_there_is_some(
    new_store: NewStore, what: str, assistant: str
) -> None:
    async with running(new_store(), what, assistant) as (program, connection):
        tell(program, signal.SIGUSR1, "short")
        await send(connection, REQUESTED)
        # More often than the limit for faults of its own.
        for _ in range(5):
            program.line("out of")
        assert not await is_ready(connection)
        (room,) = await rooms_of(program)
        assert room.restarts == 0
        assert room.state is not RoomState.FAILED
        tell(program, signal.SIGUSR2, "plenty")
        program.line("attending", within=BACK_WITHIN)
        await eventually(lambda: is_ready(connection), BACK_WITHIN)
        (room,) = await rooms_of(program)
        assert room.restarts == 0
        assert room.state is RoomState.LIVE


@pytest.mark.parametrize("what", ["files", "memory", "threads"])
async def test_a_predicate_that_finds_none_left_is_asked_again_until_there_is_some(
    new_store: NewStore, what: str
) -> None:
    async with running(new_store(), what) as (program, connection):
        await send(connection, webhook("room.client.joined", id="before", room="/visit-2").raw)
        await asyncio.to_thread(program.decided, 4)
        tell(program, signal.SIGUSR1, "short")
        await send(connection, JOINED)
        # More often than the limit for faults of its own.
        for _ in range(4):
            program.line("out of")
        assert not await is_ready(connection)
        tell(program, signal.SIGUSR2, "plenty")
        async with asyncio.timeout(BACK_WITHIN):
            records = await asyncio.to_thread(program.decided, 5)
        assert [record.state for record in records[3:]] == [State.FIRED] * 2
        await eventually(lambda: is_ready(connection), BACK_WITHIN)


async def test_where_no_thread_can_take_the_place_of_one_that_hangs_decisions_wait_for_one(new_store: NewStore) -> None:
    async with running(new_store(), "threads", timeout="0.2") as (program, connection):
        await send(connection, LEFT)
        program.line("hanging")
        tell(program, signal.SIGUSR1, "short")
        await send(connection, JOINED)
        program.line("decisions with them: out of threads")
        assert not await is_ready(connection)
        tell(program, signal.SIGUSR2, "plenty")
        async with asyncio.timeout(BACK_WITHIN):
            left, joined = (await asyncio.to_thread(program.decided, 5))[3:]
        assert (left.state, joined.state) == (State.FAILED, State.FIRED)
        await eventually(lambda: is_ready(connection), BACK_WITHIN)


async def test_predicates_that_hang_hold_so_many_threads_and_the_log_names_them(new_store: NewStore) -> None:
    async with running(new_store(), "threads", timeout="0.1") as (program, connection):
        for number in range(3):
            await send(connection, webhook("room.client.left", id=f"left-{number}", room=f"/visit-{number}").raw)
        await send(connection, JOINED)
        program.line("2 calls hang: hang at short_of.py")
        assert not await is_ready(connection)
        await eventually(lambda: states_in(program, [State.FAILED] * 2 + [State.PENDING] * 2))
        program.popen.send_signal(signal.SIGHUP)
        async with asyncio.timeout(BACK_WITHIN):
            records = await asyncio.to_thread(program.decided, 7)
        assert [record.state for record in records[5:]] == [State.SKIPPED, State.FIRED]
        await eventually(lambda: is_ready(connection), BACK_WITHIN)
