"""Requests that are answered without their room's lock: none misses a change that was under way when it came."""

import asyncio
from typing import Any

import pytest

from tests.store.conftest import Replicas
from tests.support.connecting import connected
from tests.support.counts import people
from tests.support.rooms import ask, bring_to, move, states
from tests.support.until import eventually
from whereby_trigger.store import Bounds, RoomState
from whereby_trigger.store.postgres import rooms

pytestmark = pytest.mark.anyio

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_who_comes_while_the_assistant_of_an_empty_room_is_told_to_leave_gets_the_next_one(
    url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = await opened(url), await opened(url)
    live = await bring_to(owner, RoomState.LIVE)
    await people(owner, 0)
    found_empty, go, write = asyncio.Event(), asyncio.Event(), rooms._write

    async def write_late(*arguments: Any) -> None:
        found_empty.set()
        await go.wait()
        await write(*arguments)

    monkeypatch.setattr(rooms, "_write", write_late)
    leaving = asyncio.ensure_future(owner.stopping(Bounds(1e-9, None)))
    await found_empty.wait()
    await people(other, 1)
    asked = asyncio.ensure_future(ask(other))
    async with connected(url) as looking:

        async def has_looked() -> bool:
            return asked.done() or await looking.fetchval(WAITING) > 0

        await eventually(has_looked)
    go.set()
    assert [room.id for room in await leaving] == [live.id]
    claim = await asked
    assert (claim.state, claim.successor) == (RoomState.ENDING, True)
    assert await move(owner, live, RoomState.ENDED)
    assert await states(owner) == [RoomState.ENDED, RoomState.WAITING]
