"""The turns of strangers: who has brought no delivery yet waits for them, and for no more than that."""

import asyncio
from contextlib import AsyncExitStack
from unittest.mock import Mock

import pytest

from tests.receive.test_connections import Asking, Schedule
from tests.support.http import connected, request
from tests.support.receiver import Receiver
from whereby_trigger.receive import connections
from whereby_trigger.receive.connections import Connections

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
