"""The kinds of assistant that the program under test runs: each writes ticks to a file while it is in its room."""

import asyncio
import itertools
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from reliability.ticks import ticking
from whereby_trigger import AssistantRefused, Session, Trigger

EVERY = 0.05
HANG = 3600.0
RUNS = itertools.count(1)
"""Numbers that distinguish runs of a coroutine, as process ids distinguish processes."""


def as_process(trigger: Trigger, ticks: str) -> None:
    trigger.assistant_command(ticking(ticks), env={"TICK_HOST": str(os.getpid()), "LD_PRELOAD": ""})


def slow_to_leave(trigger: Trigger, ticks: str) -> None:
    """Register an assistant that takes up to 9 s to leave and has a helper in another process session."""
    trigger.assistant_command([*ticking(ticks), "9"], env={"TICK_HOST": str(os.getpid())})


def behind_sh(trigger: Trigger, ticks: str) -> None:
    script = f"{shlex.join(ticking(ticks))}; true"
    trigger.assistant_command(["sh", "-c", script], env={"TICK_HOST": str(os.getpid())})


def behind_npm(trigger: Trigger, ticks: str) -> None:
    """Run the command as the start script of the package beside the ticks' file."""
    folder = str(Path(ticks).parent)
    trigger.assistant_command(["npm", "start", "--silent", "--prefix", folder], env={"TICK_HOST": str(os.getpid())})


def as_coroutine(trigger: Trigger, ticks: str) -> None:
    @trigger.assistant
    async def tick(session: Session) -> None:
        await _tick_until_ended(session, ticks)


def blocking(trigger: Trigger, ticks: str) -> None:
    """Register an assistant that blocks the event loop forever when its session should end, like bad user code."""

    @trigger.assistant
    async def block(session: Session) -> None:
        await _tick_until_ended(session, ticks)
        time.sleep(HANG)  # noqa: ASYNC251 - the drain must not wait for this


def crowding(trigger: Trigger, ticks: str) -> None:
    """Hold a thread of the event loop's default executor in each room and in each call of the predicate."""

    @trigger.when("room.client.left")
    async def crowd_too() -> bool:
        await asyncio.to_thread(time.sleep, HANG)
        return True

    @trigger.assistant
    async def crowd(session: Session) -> None:
        _tick(session, ticks)
        await asyncio.to_thread(time.sleep, HANG)


def poisonous(trigger: Trigger, ticks: str) -> None:
    """Register an assistant that does what its room's name says: raise, refuse, exit, hang, or tick as a good one."""

    @trigger.assistant
    async def poison(session: Session) -> None:
        name = session.room_name
        if "raise" in name:
            raise ValueError("poison")
        if "refuse" in name:
            raise AssistantRefused("room_empty", retry=False)
        if "exit" in name:
            raise SystemExit(3)
        if "hang" in name:
            await asyncio.sleep(HANG)
        await _tick_until_ended(session, ticks)


def _tick(session: Session, ticks: str) -> None:
    notebook = os.open(ticks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.write(notebook, f"{at:.4f} {next(RUNS)} {os.getpid()} {session.room_name}\n".encode())
    os.close(notebook)


async def _tick_until_ended(session: Session, ticks: str) -> None:
    notebook = os.open(ticks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    mark = f"{next(RUNS)} {os.getpid()} {session.room_name}\n"
    try:
        while not session.ended.is_set():
            os.write(notebook, f"{time.clock_gettime(time.CLOCK_BOOTTIME):.4f} {mark}".encode())
            await asyncio.wait([asyncio.ensure_future(session.ended.wait())], timeout=EVERY)
    finally:
        os.close(notebook)


FORMS: dict[str, Callable[[Trigger, str], None]] = {
    "process": as_process,
    "slow": slow_to_leave,
    "sh": behind_sh,
    "npm": behind_npm,
    "coroutine": as_coroutine,
    "blocking": blocking,
    "poison": poisonous,
    "crowding": crowding,
}
