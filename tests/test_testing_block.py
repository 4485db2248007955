"""What a block of `trigger.testing()` is: when it may be used, who may wait in it, and what it leaves behind."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.until import AT_ONCE
from whereby_trigger import Hold, Trigger
from whereby_trigger.errors import LifecycleError, UsageError
from whereby_trigger.testing import TestingTrigger, webhook

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


USES: dict[str, Callable[[TestingTrigger], Awaitable[object]]] = {
    "deliver": lambda t: t.deliver(webhook(JOINED)),
    "decided": lambda t: t.decided(webhook(JOINED)),
    "post": lambda t: t.post(b"{}"),
    "advance": lambda t: t.advance(1),
    "settle": lambda t: t.settle(),
    "stored": lambda t: t.stored(),
    "timeline": lambda t: t.timeline(),
    "meeting": lambda t: t.meeting().join("host"),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_what_is_called_before_or_after_the_block_says_so_at_once(
    use: Callable[[TestingTrigger], Awaitable[object]],
) -> None:
    testing = Trigger().testing()
    async with asyncio.timeout(AT_ONCE):
        with pytest.raises(UsageError, match="call this inside"):
            await use(testing)
        async with testing:
            pass
        with pytest.raises(UsageError, match="call this inside"):
            await use(testing)


async def test_a_block_within_its_own_block_is_refused_and_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()
    testing = Trigger().testing()
    async with testing as t:
        with pytest.raises(LifecycleError, match="each block"):
            async with testing:
                pass
        assert (await t.deliver(webhook(JOINED))).state == "unhandled"
    assert asyncio.all_tasks() == before
