"""A success that is decided after its session has ended."""

import asyncio

import pytest

from tests.assist.test_assistants import JOINED, Delivering
from tests.support.supervised import Assistants
from tests.support.until import eventually
from whereby_trigger import RoomClientJoined, Trigger
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio


async def test_a_success_that_is_decided_after_its_session_has_ended_starts_no_assistant() -> None:
    assistants, asked, answer = Assistants(), asyncio.Event(), asyncio.Event()

    async def slow(joined: RoomClientJoined) -> bool:
        asked.set()
        await answer.wait()
        return True

    trigger = Trigger(webhook_triggers={"room.client.joined": slow}, stop_grace=0.1)
    trigger.assistant(assistants.stay)
    async with Delivering(trigger) as t:

        async def both_stored() -> bool:
            return len(await t._t.stored()) == 2

        joined = asyncio.ensure_future(t.deliver(webhook(JOINED, room_session_id="s")))
        await asked.wait()
        ended = asyncio.ensure_future(t.deliver(webhook("room.session.ended", room_session_id="s")))
        await eventually(both_stored)
        answer.set()
        await asyncio.gather(joined, ended)
        assert [room.state for room in await t.rooms() if room.state not in ("ended", "failed")] == []
