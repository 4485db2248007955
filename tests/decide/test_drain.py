"""A drain decides what is queued and gives listeners its time, and no user code can make it longer."""

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Stage, leave_pending
from tests.support.until import eventually
from whereby_trigger import Trigger, Webhook
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Pending, State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

AMPLE = 30.0


def joined(number: int = 1) -> Webhook:
    return webhook("room.client.joined", room=f"/visit-{number}")


def firing() -> Trigger:
    return Trigger(webhook_triggers={"room.client.joined": lambda: True})


async def drain(stage: Stage, timeout: float) -> float:
    """Drain, and return how many seconds it took."""
    begin = time.monotonic()
    await stage.running.drain(timeout, asyncio.Event())
    return time.monotonic() - begin


async def test_what_is_queued_is_decided(tmp_path: Path) -> None:
    async with Stage(firing(), tmp_path) as stage:
        for number in range(100):
            await stage.deliver(joined(number % 7))
        assert await drain(stage, AMPLE) < AMPLE
        assert {record.state for record in await stage.records()} == {State.FIRED}


class SlowReading:
    """Block a stage's read of pending webhooks from its store until `go` is set."""

    def __init__(self, stage: Stage) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self._pending = stage.store.pending
        stage.store.pending = self._read  # type: ignore[method-assign]

    async def _read(self, after: int, limit: int) -> list[Pending]:
        rows = await self._pending(after, limit)
        self.begun.set()
        await self.go.wait()
        return rows


async def test_what_arrived_while_the_backlog_was_read_is_decided_before_the_drain_is_over(tmp_path: Path) -> None:
    stage = Stage(firing(), tmp_path)
    reading = SlowReading(stage)
    async with stage:
        await reading.begun.wait()
        await stage.deliver(joined())
        draining = asyncio.create_task(drain(stage, AMPLE))
        await eventually(lambda: stage.running.readiness.draining)
        reading.go.set()
        assert await draining < AMPLE
        assert [record.state for record in await stage.records()] == [State.FIRED]


async def test_what_was_just_taken_over_is_decided_before_the_drain_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.dispatcher.REREAD", 3600.0)
    async with Stage(firing(), tmp_path) as stage:
        await eventually(lambda: stage.running.dispatcher.idle)
        reading = SlowReading(stage)
        await leave_pending(tmp_path, joined())
        await reading.begun.wait()
        draining = asyncio.create_task(drain(stage, AMPLE))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not draining.done()
        reading.go.set()
        assert await draining < AMPLE
        assert [record.state for record in await stage.records()] == [State.FIRED]


async def test_a_store_that_cannot_be_read_does_not_hold_the_drain(tmp_path: Path) -> None:
    stage = Stage(firing(), tmp_path)

    async def away(after: int, limit: int) -> list[Pending]:
        raise StoreUnavailable("away")

    stage.store.pending = away  # type: ignore[method-assign]
    async with stage:
        await stage.deliver(joined())
        assert await drain(stage, AMPLE) < AMPLE
        assert [record.state for record in await stage.records()] == [State.PENDING]


async def test_async_listeners_get_the_drains_time(tmp_path: Path) -> None:
    trigger = firing()
    go, ended = asyncio.Event(), asyncio.Event()

    @trigger.on("trigger_event_success")
    async def assist() -> None:
        await go.wait()
        ended.set()

    sent = joined()
    async with Stage(trigger, tmp_path) as stage:
        await stage.deliver(sent)
        await stage.decision(sent)
        draining = asyncio.create_task(drain(stage, AMPLE))
        await eventually(lambda: stage.running.readiness.draining)
        go.set()
        assert await draining < AMPLE
        assert ended.is_set()


async def test_async_listeners_are_cancelled_when_the_drains_time_is_over_and_that_is_recorded(tmp_path: Path) -> None:
    trigger = firing()
    cancelled: list[bool] = []

    @trigger.on("trigger_event_success")
    async def assist() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    sent = joined()
    async with Stage(trigger, tmp_path) as stage:
        await stage.deliver(sent)
        await stage.decision(sent)
        assert await drain(stage, 0.05) < AMPLE
        assert cancelled == [True]

        async def errors() -> tuple[str, ...]:
            return (await stage.records())[0].errors

        (error,) = await eventually(errors)
    assert error.startswith("listener assist: CancelledError")


async def test_a_listener_that_ends_itself_tidily_when_cancelled_is_waited_for(tmp_path: Path) -> None:
    trigger = firing()
    tidied: list[bool] = []

    @trigger.on("trigger_event_success")
    async def assist() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            tidied.append(True)

    sent = joined()
    async with Stage(trigger, tmp_path) as stage:
        await stage.deliver(sent)
        await stage.decision(sent)
        await drain(stage, 0.01)
    assert tidied == [True]


async def test_what_arrives_during_the_drain_is_decided_and_its_listeners_get_the_rest_of_the_time(
    tmp_path: Path,
) -> None:
    trigger = firing()
    gates: list[asyncio.Event] = []
    ended: list[int] = []

    @trigger.on("trigger_event_success")
    async def assist() -> None:
        gate = asyncio.Event()
        gates.append(gate)
        await gate.wait()
        ended.append(1)

    async with Stage(trigger, tmp_path) as stage:
        await stage.deliver(joined(1))
        await eventually(lambda: len(gates) == 1)
        draining = asyncio.create_task(drain(stage, AMPLE))
        await eventually(lambda: stage.running.readiness.draining)
        await stage.deliver(joined(2))
        await eventually(lambda: len(gates) == 2)
        gates[0].set()
        await eventually(lambda: len(ended) == 1)
        gates[1].set()
        assert await draining < AMPLE
        assert len(ended) == 2


class Holding:
    """Predicates that keep their caller waiting until released, even if they are cancelled."""

    def __init__(self) -> None:
        self._let_go = threading.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    async def stubborn(self) -> bool:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        while not self._let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return False

    def blocking(self) -> bool:
        return self._let_go.wait()

    async def let_go(self) -> None:
        self._let_go.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("way", ["stubborn", "blocking"])
async def test_no_predicate_holds_the_drain_past_its_time(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.user_code.WIND_DOWN", 0.05)
    holding = Holding()
    begin = time.monotonic()
    async with Stage(Trigger(webhook_triggers={"room.client.joined": getattr(holding, way)}), tmp_path) as stage:
        await stage.deliver(joined(1))
        await stage.deliver(joined(2))
        await stage.running.drain(0.05, asyncio.Event())
    assert time.monotonic() - begin < AMPLE
    await holding.let_go()


async def test_what_a_drain_had_no_time_for_stays_pending_and_is_decided_by_the_next_start(tmp_path: Path) -> None:
    holding = Holding()
    async with Stage(Trigger(webhook_triggers={"room.client.joined": holding.blocking}), tmp_path) as stage:
        for number in range(5):
            await stage.deliver(joined(number))
        await stage.running.drain(0.05, asyncio.Event())
        assert [record.state for record in await stage.records()] == [State.PENDING] * 5
    await holding.let_go()
    async with Stage(firing(), tmp_path) as stage:
        await eventually(lambda: len(stage.decided) == 5)
        assert {record.state for record in await stage.records()} == {State.FIRED}


async def test_a_drain_that_is_told_to_hurry_ends_now(tmp_path: Path) -> None:
    async def never() -> bool:
        return await asyncio.Event().wait()

    hurry = asyncio.Event()
    async with Stage(Trigger(webhook_triggers={"room.client.joined": never}), tmp_path) as stage:
        await stage.deliver(joined())
        draining = asyncio.create_task(stage.running.drain(3600, hurry))
        await eventually(lambda: stage.running.readiness.draining)
        hurry.set()
        async with asyncio.timeout(AMPLE):
            await draining
