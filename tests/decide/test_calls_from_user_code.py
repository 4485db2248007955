"""User code, sync or async, may call the trigger that calls it, and no call waits for itself."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.until import eventually
from tests.support.whereby import SECRET, deliver
from whereby_trigger import Trigger
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

WITHIN = 30.0


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_predicate_may_stop_the_trigger_and_its_webhook_is_still_decided(
    asynchronous: bool, tmp_path: Path
) -> None:
    trigger = Trigger(store=f"sqlite:///{tmp_path}/stop.db", port=0, host="127.0.0.1", secret=SECRET)
    heard: list[str] = []

    def stop() -> bool:
        trigger.stop()
        trigger.stop()
        return True

    async def stop_async() -> bool:
        return stop()

    trigger.when("room.client.joined")(stop_async if asynchronous else stop)
    trigger.on("trigger_event_success", lambda success: heard.append(success.room_url))
    async with asyncio.timeout(WITHIN):
        serving = asyncio.create_task(trigger.serve())
        await eventually(lambda: trigger.port)
        url = f"http://127.0.0.1:{trigger.port}/"
        assert (await asyncio.to_thread(deliver, url, webhook("room.client.joined"))).status == 200
        await serving
    assert heard == ["https://acme.whereby.com/visit-1"]


async def test_sync_code_may_register_and_remove_listeners_and_ask_for_them() -> None:
    heard: list[str] = []
    trigger = Trigger()

    def late() -> None:
        heard.append("late")

    @trigger.when("room.client.joined")
    def predicate() -> bool:
        trigger.on("trigger_event_success", late)
        assert trigger.listeners("trigger_event_success") == [late]
        return True

    @trigger.when("room.client.left")
    def removing() -> bool:
        assert trigger.off("trigger_event_success", late)
        return True

    async with trigger.testing() as t:
        assert (await t.deliver(webhook("room.client.joined"))).state is State.FIRED
        assert (await t.deliver(webhook("room.client.left"))).state is State.FIRED
    assert heard == ["late"]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_listener_that_removes_itself_is_called_once(asynchronous: bool) -> None:
    heard: list[str] = []
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})

    def listener() -> None:
        heard.append("called")
        trigger.off("trigger_event_success", chosen)

    async def listener_async() -> None:
        listener()

    chosen: Any = listener_async if asynchronous else listener
    trigger.on("trigger_event_success", chosen)
    async with trigger.testing() as t:
        for number in range(3):
            await t.deliver(webhook("room.client.joined", room=f"/visit-{number}"))
    assert heard == ["called"]


async def test_an_async_listener_may_emit_an_event_and_learn_whether_anyone_listened() -> None:
    heard: list[Any] = []
    trigger = Trigger(webhook_triggers={"room.client.joined": lambda: True})
    trigger.on("own", heard.append)

    @trigger.on("trigger_event_success")
    async def pass_on() -> None:
        heard.append(await trigger.emit("own", "payload"))
        heard.append(await trigger.emit("unheard of"))

    async with trigger.testing() as t:
        await t.deliver(webhook("room.client.joined"))
        await eventually(lambda: len(heard) == 3)
    assert heard == ["payload", True, False]


async def test_sync_code_may_emit_in_a_loop_of_its_own_and_async_listeners_are_waited_for() -> None:
    heard: list[Any] = []
    trigger = Trigger()
    trigger.on("own", heard.append)

    @trigger.on("own")
    async def slowly(payload: Any) -> None:
        await asyncio.sleep(0)
        heard.append(f"{payload} later")

    @trigger.when("room.client.joined")
    def predicate() -> bool:
        heard.append(asyncio.run(trigger.emit("own", "payload")))
        return True

    async with asyncio.timeout(WITHIN), trigger.testing() as t:
        for room in ("/visit-1", "/visit-2"):
            assert (await t.deliver(webhook("room.client.joined", room=room))).state is State.FIRED
    assert heard == ["payload", "payload later", True] * 2


async def test_listeners_come_and_go_in_many_threads_and_none_is_lost() -> None:
    trigger = Trigger()
    listeners = [[lambda: None for _ in range(200)] for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def register(mine: list[Any]) -> None:
        for listener in mine:
            trigger.on("own", listener)
        for listener in mine[::2]:
            assert trigger.off("own", listener)

    threads = [threading.Thread(target=register, args=(mine,)) for mine in listeners]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, WITHIN)
    finally:
        sys.setswitchinterval(before)
    assert set(trigger.listeners("own")) == {listener for mine in listeners for listener in mine[1::2]}
