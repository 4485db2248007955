"""A command in its room, from the supervisor's side: when its run is over, so is the process."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.assist.programs import child
from tests.support.presence import Presence
from tests.support.supervised import LONG, Supervised
from whereby_trigger.assist import command_assistant, launcher
from whereby_trigger.assist.supervisor import Launch
from whereby_trigger.boot import boot_time
from whereby_trigger.store import RoomState
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

LIVE, ENDED = RoomState.LIVE, RoomState.ENDED


def launch(argv: list[str]) -> Launch:
    return launcher(command_assistant(argv, None, False, False), grace=LONG, deadline=lambda: boot_time() + LONG)


async def test_a_command_that_is_cut_off_while_it_is_ending_is_gone_before_its_slot_is_free(
    tmp_path: Path, presence: Presence
) -> None:
    stays = launch(child(presence, "A", "--ignore-term"))
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path}/rooms.db"), launch=stays) as one:
        await one.ask()
        room = await one.reaches(LIVE)
        assert room.pid is not None
        await asyncio.to_thread(presence.line, "here")
        await one.stop()
        await asyncio.to_thread(presence.line, "was told to leave")
        await one.supervisor.cut_off("the lease has run out")
        assert not one.supervisor.running
        with pytest.raises(ProcessLookupError):
            os.kill(room.pid, 0)
        assert (await one.reaches(ENDED)).reason == "stopped by hand"
