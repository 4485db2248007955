"""A process assistant's deadline, which moves with the lease: also while the process starts, and when it passes."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.asgi import post
from tests.support.http import SECRET
from tests.support.supervised import Supervised
from tests.support.until import eventually
from whereby_trigger import Trigger
from whereby_trigger.assist import command_assistant, launcher, process
from whereby_trigger.assist.process import GuardedProcess
from whereby_trigger.assist.runners import Launch, Run
from whereby_trigger.clock import Lease, boot_time
from whereby_trigger.store import Room, RoomState
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

# `signal.pause()` would sleep on if the signal came just before it.
POLITE = "from signal import *; pthread_sigmask(SIG_BLOCK, [SIGTERM]); sigwait([SIGTERM])"
"""Leaves with exit code 0 as soon as it gets TERM."""

SOON, LATER, GRACE = 4.0, 60.0, 0.5


def polite(deadline: Callable[[], float]) -> Launch:
    assistant = command_assistant([sys.executable, "-I", "-S", "-c", POLITE], None, False, False)
    return launcher(assistant, grace=GRACE, deadline=deadline)


async def test_a_deadline_that_moves_while_the_process_starts_is_not_missed(tmp_path: Path) -> None:
    began = boot_time()
    moved: Iterator[float] = iter((began + SOON,))
    launch = polite(lambda: next(moved, began + LATER))
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path / 'rooms.db'}"), launch=launch) as supervised:
        await supervised.ask()
        await supervised.reaches(RoomState.LIVE)
        await eventually(lambda: boot_time() > began + SOON)
        assert (await supervised.reaches(RoomState.LIVE)).attempt == 1


async def test_a_process_that_left_because_its_deadline_was_near_is_started_again(tmp_path: Path) -> None:
    of_the_first = iter((SOON, SOON))
    launch = polite(lambda: boot_time() + next(of_the_first, LATER))
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path / 'rooms.db'}"), launch=launch) as supervised:
        await supervised.ask()
        room = await supervised.reaches(RoomState.LIVE, attempt=1)
        again = await supervised.reaches(RoomState.LIVE, attempt=2)
    assert again.id == room.id
    assert again.restarts == 0


async def test_a_deadline_that_passes_before_the_process_runs_uses_up_no_restart(tmp_path: Path) -> None:
    of_the_first = iter((-1.0,))
    launch = polite(lambda: boot_time() + next(of_the_first, LATER))
    async with Supervised(SqliteStore(f"sqlite:///{tmp_path / 'rooms.db'}"), launch=launch) as supervised:
        await supervised.ask()
        room = await supervised.reaches(RoomState.LIVE, attempt=2)
    assert room.restarts == 0


async def test_a_deadline_that_is_moved_before_the_process_runs_counts() -> None:
    late, later = boot_time() - 1, boot_time() + LATER
    process = await GuardedProcess.start(
        ["/bin/true"], env={}, input=b"", deadline=late, grace=0, spawned=lambda process: process.extend(later)
    )
    assert (await process.wait()).code == 0


async def test_a_renewal_moves_the_deadline_of_a_process_that_has_not_started_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "guard.py"
    slow.write_text("import os, sys; os.read(int(sys.argv[1]), 1)")
    monkeypatch.setattr(process, "GUARD", slow)
    url = "https://acme.whereby.com/visit-1"
    run = Run(Room(1, url[8:], url, RoomState.STARTING, "replica", None, 1, 0, None, None, "", 0.0, 0.0))
    launched: list[int | None] = []
    starting = asyncio.create_task(polite(lambda: boot_time() + LATER)(run, launched.append))
    await eventually(lambda: run.extend is not None)
    assert launched == []
    starting.cancel()
    await asyncio.wait({starting})


@given(st.floats(1, 3600))
def test_an_outage_that_stops_no_coroutine_stops_no_process_either(ttl: float) -> None:
    lease = Lease(ttl)
    assert lease.guard_notice < lease.notice


async def test_a_process_is_not_ended_while_a_short_lease_is_renewed(tmp_path: Path) -> None:
    trigger = Trigger(
        webhook_triggers={"room.client.joined": lambda: True},
        secret=SECRET,
        store=f"sqlite:///{tmp_path}/rooms.db",
        drain_timeout=0,
        lease_ttl=2,
    )
    trigger.assistant_command([sys.executable, "-I", "-S", "-c", POLITE])

    async def is_live() -> bool:
        return [room.state for room in await trigger.list_assistants()] == [RoomState.LIVE]

    async with trigger.lifespan():
        assert (await post(trigger.asgi, webhook("room.client.joined").raw)).status == 200
        await eventually(is_live)
        served_at = boot_time()
        await eventually(lambda: boot_time() > served_at + 2)
        (room,) = await trigger.list_assistants()
        assert (room.state, room.attempt) == (RoomState.LIVE, 1)
