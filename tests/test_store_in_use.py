"""The store that manual calls use: the one that the trigger has in use, from any loop or thread."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.until import eventually
from whereby_trigger import Trigger
from whereby_trigger.store import RoomState
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

URL = "https://acme.whereby.com/visit-1"


@pytest.fixture
def trigger(tmp_path: Path) -> Trigger:
    return Trigger(store=f"sqlite:///{tmp_path}/production.db", port=0, host="127.0.0.1")


async def test_in_a_test_a_listener_asks_for_an_assistant_in_the_tests_store(trigger: Trigger, tmp_path: Path) -> None:
    @trigger.on("room.client.joined")
    async def ask() -> None:
        asked.append(await trigger.start_assistant(URL))

    asked: list[Any] = []
    async with trigger.testing() as t:
        await t.deliver(webhook("room.client.joined"))
        await eventually(lambda: asked)
        assert [room.url for room in await trigger.list_assistants()] == [URL]
        assert await trigger.stop_assistant(URL) is RoomState.WAITING
    assert asked[0].new
    assert list(tmp_path.iterdir()) == []


async def test_in_a_test_sync_code_asks_for_an_assistant_in_the_tests_store(trigger: Trigger, tmp_path: Path) -> None:
    @trigger.on("room.client.joined")
    def ask() -> None:
        asyncio.run(trigger.start_assistant(URL))

    async with trigger.testing() as t:
        await t.deliver(webhook("room.client.joined"))
        assert [room.url for room in await trigger.list_assistants()] == [URL]
    assert list(tmp_path.iterdir()) == []


async def test_of_two_tests_stores_the_one_that_is_left_is_acted_on(trigger: Trigger, tmp_path: Path) -> None:
    first, second = trigger.testing(), trigger.testing()
    await first.__aenter__()
    async with second:
        await first.__aexit__(None, None, None)
        assert (await trigger.start_assistant(URL)).new
    assert list(tmp_path.iterdir()) == []


async def test_after_a_test_the_configured_store_is_acted_on(trigger: Trigger, tmp_path: Path) -> None:
    async with trigger.testing():
        await trigger.start_assistant(URL)
    assert (await trigger.start_assistant(URL)).new
    assert (tmp_path / "production.db").exists()


async def test_beside_a_running_trigger_another_loop_starts_lists_and_stops_assistants(trigger: Trigger) -> None:
    def by_hand() -> tuple[bool, list[str], RoomState | None]:
        claim = asyncio.run(trigger.start_assistant(URL))
        listed = [room.url for room in asyncio.run(trigger.list_assistants())]
        return claim.new, listed, asyncio.run(trigger.stop_assistant(URL))

    async with trigger:
        assert await asyncio.to_thread(by_hand) == (True, [URL], RoomState.WAITING)
        assert [room.state for room in await trigger.list_assistants()] == [RoomState.ENDED]
