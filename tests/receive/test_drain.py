"""A drain that begins before the trigger's first look at what is pending."""

import asyncio
import math
from pathlib import Path

import pytest

from tests.support.asgi import post
from tests.support.receiver import Receiver
from tests.support.until import AT_ONCE
from whereby_trigger import Trigger
from whereby_trigger.store import State
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = webhook("room.client.joined", id="a1").raw


class BusyStore(SqliteStore):
    """A store that is slow to answer a claim, as if others were writing to it."""

    def __init__(self, url: str, lease_ttl: float = 30.0) -> None:
        super().__init__(url, lease_ttl)
        self.go = asyncio.Event()

    async def _claim(self, max_age: float) -> int:
        await self.go.wait()
        return await super().take_over(max_age)

    def take_over(self, max_age: float = math.inf) -> "asyncio.Future[int]":
        return asyncio.ensure_future(self._claim(max_age))


async def test_what_is_acknowledged_before_the_first_look_at_the_backlog_is_decided_by_the_drain(
    tmp_path: Path, trigger: Trigger
) -> None:
    async with Receiver(tmp_path, trigger, BusyStore) as receiver:
        assert isinstance(receiver.store, BusyStore)
        assert (await post(receiver.edge, JOINED)).status == 200
        draining = asyncio.create_task(receiver.running.drain(10, asyncio.Event()))
        await asyncio.wait({draining}, timeout=0.2)
        assert not draining.done()
        receiver.store.go.set()
        await draining
        assert [record.state for record in await receiver.records()] == [State.FIRED]


async def test_a_drain_does_not_wait_beyond_its_time_for_a_look_that_cannot_be_had(tmp_path: Path) -> None:
    async with Receiver(tmp_path, store=BusyStore) as receiver:
        async with asyncio.timeout(AT_ONCE):
            await receiver.running.drain(0.2, asyncio.Event())
