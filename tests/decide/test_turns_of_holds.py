"""Held webhooks that are asked again: their turns among the others of their room, and their remaining time."""

import asyncio
from pathlib import Path

import pytest

from tests.decide.test_holds import HOLD, held_on, joined, left, outcome
from tests.support.stage import Stage
from tests.support.until import eventually
from whereby_trigger import RoomClientJoined, Trigger
from whereby_trigger.decide import PendingWebhook
from whereby_trigger.decide.dispatcher import RoomQueue
from whereby_trigger.decide.pending import from_store
from whereby_trigger.store import Pending, State

pytestmark = pytest.mark.anyio


async def test_many_held_webhooks_that_are_asked_again_keep_none_behind_them_waiting(tmp_path: Path) -> None:
    asked: list[str] = []
    asked_before: list[int] = []
    slow, go_on = asyncio.Event(), asyncio.Event()
    trigger = Trigger()

    @trigger.when("room.client.joined", hold=HOLD)
    async def slowly(webhook: RoomClientJoined) -> bool:
        asked.append(webhook.id)
        if slow.is_set():
            await go_on.wait()
        return True

    trigger.on("room.client.left", lambda: asked_before.append(len(asked)))
    async with Stage(trigger, tmp_path) as stage:
        for number in range(20):
            await held_on(stage, joined(f"a{number}", 2))
        await stage.running.hold_watch.look()
        slow.set()
        asked.clear()
        stage.jump(HOLD)
        await eventually(lambda: asked)
        behind = left("b", 2)
        await stage.deliver(behind)
        go_on.set()
        await outcome(stage, behind)
        await eventually(lambda: len(asked) == 20)
    assert asked_before == [1]


def test_new_webhooks_and_held_ones_of_a_room_take_turns_and_new_ones_keep_their_order() -> None:
    queue = RoomQueue()
    for seq, due in ((1, 9.0), (2, None), (3, 9.0), (4, 9.0), (5, None), (6, 9.0)):
        queue.append(PendingWebhook(seq, "", joined("a", 2), None, 0.0, 0.0, 0.0, held_since=due and 0.0, due=due))
    taken = []
    while queue:
        taken.append(queue.pop().seq)
    assert taken == [2, 1, 5, 3, 4, 6]


@pytest.mark.parametrize(
    ("held_for", "due_in", "time_left"), [(12, 18, 18), (32, -2, -2), (0, 30, 30), (-3600, 3630, 30)]
)
def test_no_more_than_the_whole_hold_is_left_if_the_stores_clock_was_set_back(
    held_for: float, due_in: float, time_left: float
) -> None:
    row = Pending(1, "replica", "a", "room.client.joined", joined("a", 2).raw, 0.0, 0.0, 0, 0, held_for, due_in)
    queued = from_store(row, None, 1000.0)
    assert (queued.held_since, queued.due) == (1000.0 - max(held_for, 0), 1000.0 + time_left)


@pytest.mark.parametrize(("hold", "state"), [(1.0, State.HELD), (3600.0, State.HELD), (None, State.FIRED)])
async def test_a_webhook_that_another_program_held_is_due_when_that_said_unless_this_one_has_no_hold(
    tmp_path: Path, hold: float | None, state: State
) -> None:
    before, after, join = Trigger(), Trigger(), joined("a", 2)
    before.when("room.client.joined", hold=HOLD)(lambda: True)
    after.when("room.client.joined", hold=hold)(lambda: True)
    async with Stage(before, tmp_path) as stage:
        await held_on(stage, join)
        (held,) = await stage.records()
    async with Stage(after, tmp_path) as stage:
        await eventually(lambda: len(stage.running.holds) == 1 if hold else stage.running.dispatcher.idle)
        await eventually(lambda: stage.running.dispatcher.idle)
        (record,) = await stage.records()
    assert (record.state, record.due_at) == (state, held.due_at)
    assert record.reason.startswith("predicate" if hold is None else "held for 30 s: ")
