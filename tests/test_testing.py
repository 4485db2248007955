"""What `trigger.testing()` does with assistants: none starts unless requested, and the end waits for nobody."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.until import eventually
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Session, Trigger
from whereby_trigger.store import RoomState
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

JOINED = "room.client.joined"
AT_ONCE = 4.0
"""Seconds within which a block that waits for nothing ends, on a busy machine."""


def firing(**settings: float) -> Trigger:
    return Trigger(webhook_triggers={"room.client.joined": lambda: True}, **settings)  # type: ignore[arg-type]


class Staying:
    """An assistant that ends only when it is cancelled."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    async def __call__(self, session: Session) -> None:
        self.sessions.append(session)
        await asyncio.Event().wait()


async def test_no_assistant_starts_and_each_room_that_would_have_got_one_is_listed() -> None:
    trigger, staying = firing(), Staying()
    trigger.assistant(staying)
    first, second = webhook(JOINED, room="/visit-1"), webhook(JOINED, room="/visit-2")
    async with trigger.testing() as t:
        assert t.assistants == []
        decision = await t.deliver(first)
        assert decision.reason.endswith("; an assistant starts")
        again = await t.deliver(webhook(JOINED, room="/visit-1"))
        assert again.reason.endswith("; the room waits for an assistant already")
        await t.deliver(second)
        await t.deliver(second)
        assert [(asked.room_url, asked.trigger_webhook) for asked in t.assistants] == [
            ("https://acme.whereby.com/visit-1", first),
            ("https://acme.whereby.com/visit-2", second),
        ]
        # The store is checked at each wake-up: two would have started it by now.
        await trigger.start_assistant("https://acme.whereby.com/visit-3")
        assert {room.state for room in await trigger.list_assistants()} == {RoomState.WAITING}
    assert staying.sessions == []


async def test_no_command_starts_either(tmp_path: Path) -> None:
    trigger = firing()
    trigger.assistant_command(["touch", str(tmp_path / "started")])
    async with trigger.testing() as t:
        await t.deliver(webhook(JOINED))
        assert [asked.room_url for asked in t.assistants] == ["https://acme.whereby.com/visit-1"]
    assert list(tmp_path.iterdir()) == []


async def test_a_bot_and_a_trigger_without_an_assistant_are_listed_nowhere() -> None:
    trigger = firing()
    async with trigger.testing() as t:
        assert (await t.deliver(webhook(JOINED))).state == "fired"
        assert t.assistants == []
    trigger.assistant(Staying())
    async with trigger.testing() as t:
        assert (await t.deliver(webhook(JOINED, role_name="recorder"))).state == "fired"
        assert t.assistants == []


async def test_the_next_meeting_of_a_room_is_listed_again() -> None:
    trigger = firing()
    trigger.assistant(Staying())
    async with trigger.testing() as t:
        for meeting in ("one", "two"):
            await t.deliver(webhook(JOINED, room_session_id=meeting))
            await t.deliver(webhook("room.session.ended", room_session_id=meeting))
        sessions = [asked.trigger_webhook.data.room_session_id for asked in t.assistants]
    assert sessions == ["one", "two"]


async def test_a_second_block_of_the_same_testing_trigger_begins_empty() -> None:
    trigger = firing()
    trigger.assistant(Staying())
    joined, testing = webhook(JOINED), trigger.testing()
    for _ in range(2):
        async with testing as t:
            assert (await t.deliver(joined)).state == "fired"
            assert len(t.assistants) == 1
            assert [record.deliveries for record in await t.stored()] == [1]


async def test_with_run_assistants_run_and_are_listed() -> None:
    trigger, staying = firing(), Staying()
    trigger.assistant(staying)
    async with trigger.testing(assistants="run") as t:
        await t.deliver(webhook(JOINED))
        await eventually(lambda: staying.sessions)
        assert [asked.room_url for asked in t.assistants] == [session.room_url for session in staying.sessions]


async def test_an_assistant_that_runs_at_the_end_is_told_to_leave_before_it_is_cancelled() -> None:
    trigger = firing()
    story: list[str] = []

    @trigger.assistant
    async def attends(session: Session) -> None:
        story.append("there")
        story.append(await session.ended)

    async with trigger.testing(assistants="run") as t:
        await t.deliver(webhook(JOINED))
        await eventually(lambda: story)
    assert story == ["there", "the replica is draining"]


@pytest.mark.parametrize("assistants", ["list", "run"])
async def test_leaving_waits_for_no_assistant_and_no_listener(assistants: str) -> None:
    trigger, staying = firing(stop_grace=3600, drain_timeout=3600), Staying()
    trigger.assistant(staying)
    ended: list[str] = []

    @trigger.on(TRIGGER_EVENT_SUCCESS)
    async def stays() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("listener")

    async with trigger.testing(assistants=assistants) as t:  # type: ignore[arg-type]
        await t.deliver(webhook(JOINED))
        if assistants == "run":
            await eventually(lambda: staying.sessions)
        left = time.monotonic()
    assert time.monotonic() - left < AT_ONCE
    assert ended == ["listener"]


async def test_another_word_for_assistants_is_refused_with_the_words_there_are() -> None:
    with pytest.raises(ValueError, match="'list' or 'run'"):
        Trigger().testing(assistants="start")  # type: ignore[arg-type]
