"""A webhook that changes its room's assistant says so in its decision's reason, whether or not it was read back."""

from pathlib import Path

import pytest

from tests.support.rooms import ask
from tests.support.stage import Stage
from whereby_trigger import Trigger
from whereby_trigger.store import State
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import room_of

pytestmark = pytest.mark.anyio
UNHANDLED = "no predicate and no listener for room.session.ended"
EFFECT = "its room no longer waits for an assistant"
ENDED = webhook("room.session.ended", room_session_id="s")
ROOM = room_of(ENDED)


@pytest.mark.parametrize("read_back", [False, True])
async def test_the_end_of_a_session_that_ended_an_assistant_says_so(tmp_path: Path, read_back: bool) -> None:
    assert ROOM is not None
    async with Stage(Trigger(), tmp_path) as stage:
        await ask(stage.store, ROOM.key, session_id="s")
        if read_back:
            stage.running.dispatcher.find((await stage.store_only(ENDED)).seq)
        else:
            await stage.deliver(ENDED)
        decision = await stage.decision(ENDED)
    assert (decision.state, decision.reason) == (State.UNHANDLED, f"{UNHANDLED}; {EFFECT}")


async def test_the_end_of_a_session_without_an_assistant_says_nothing_of_one(tmp_path: Path) -> None:
    async with Stage(Trigger(), tmp_path) as stage:
        await stage.deliver(ENDED)
        assert (await stage.decision(ENDED)).reason == UNHANDLED
