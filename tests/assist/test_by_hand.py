"""Assistants by hand: a trigger that does not run lists, starts and stops what another one runs."""

from pathlib import Path

import pytest

from whereby_trigger import StoreError, Trigger
from whereby_trigger.errors import ConfigError
from whereby_trigger.store import RoomState, RunOutcome
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

URL = "https://acme.whereby.com/visit-1"


@pytest.fixture
def trigger(tmp_path: Path) -> Trigger:
    return Trigger(store=f"sqlite:///{tmp_path}/webhooks.db")


async def test_listing_where_there_is_no_store_creates_none(trigger: Trigger, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await trigger.list_assistants()
    with pytest.raises(StoreError):
        await trigger.list_runs()
    assert list(tmp_path.iterdir()) == []


async def test_the_runs_of_a_room_are_listed_by_a_trigger_that_does_not_run(trigger: Trigger, tmp_path: Path) -> None:
    await trigger.start_assistant(URL)
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db")
    await store.open(lambda: None)
    await store.take(1)
    await store.close()
    (run,) = await trigger.list_runs()
    assert (run.attempt, run.outcome) == (1, RunOutcome.HANDED_OVER)
    assert await trigger.list_runs(f"{URL}?roomKey=x") == [run]
    assert await trigger.list_runs("https://acme.whereby.com/elsewhere") == []


async def test_a_room_is_asked_for_listed_and_given_up_by_a_trigger_that_does_not_run(trigger: Trigger) -> None:
    assert (await trigger.start_assistant(URL)).new
    assert not (await trigger.start_assistant(f"{URL}?roomKey=x")).new
    assert [(room.url, room.state) for room in await trigger.list_assistants()] == [(URL, RoomState.WAITING)]
    assert await trigger.stop_assistant(URL) is RoomState.WAITING
    assert await trigger.stop_assistant(URL) is None
    assert [room.state for room in await trigger.list_assistants()] == [RoomState.ENDED]


async def test_what_is_no_rooms_url_is_refused(trigger: Trigger, tmp_path: Path) -> None:
    for verb in (trigger.start_assistant, trigger.stop_assistant, trigger.list_runs):
        with pytest.raises(ConfigError, match="Write it like"):
            await verb("https://evil.example/visit-1")
    assert list(tmp_path.iterdir()) == []
