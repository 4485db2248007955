"""What a block of `trigger.testing()` is: when it may be used, who may wait in it, and what it leaves behind."""

import asyncio

import pytest

from whereby_trigger import Hold, Trigger
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = "room.client.joined"


def holding() -> Trigger:
    return Trigger(webhook_triggers={"room.client.joined": Hold(lambda: True, 30)})


async def test_who_gives_up_waiting_for_a_decision_may_wait_again() -> None:
    async with holding().testing() as t:
        held = webhook(JOINED)
        await t.deliver(held)
        waits = asyncio.create_task(t.decided(held))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await t.decided(held)
        again = asyncio.create_task(t.decided(held))
        await t.advance(30)
        assert [(await one).state for one in (waits, again)] == ["fired", "fired"]
