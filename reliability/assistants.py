"""The assistants of the program under test, which write ticks to a file while they are in their rooms; and the ticks.

Ticks say who was in which room when, and whether two were ever in one at the same time.
"""

import asyncio
import itertools
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from whereby_trigger import AssistantRefused, Session, Trigger
from whereby_trigger.clock import boot_time
from whereby_trigger.testing.program import until

TICKER = Path(__file__).with_name("ticker.py")
EVERY = 0.05
STALLED = 3.0
"""A longer pause between two ticks of an assistant counts as a stop: the machine is busy."""

HANG = 3600.0
RUNS = itertools.count(1)
"""Numbers that distinguish runs of a coroutine, as process ids distinguish processes."""


def ticking(ticks: str) -> list[str]:
    """Return the command of an assistant that ticks in a file."""
    return [sys.executable, "-S", str(TICKER), ticks]


def as_process(trigger: Trigger, ticks: str) -> None:
    _register(trigger, *ticking(ticks), LD_PRELOAD="")


def slow_to_leave(trigger: Trigger, ticks: str) -> None:
    """Register an assistant that takes up to 9 s to leave and has a helper in another process session."""
    _register(trigger, *ticking(ticks), "9")


def behind_sh(trigger: Trigger, ticks: str) -> None:
    _register(trigger, "sh", "-c", f"{shlex.join(ticking(ticks))}; true")


def behind_npm(trigger: Trigger, ticks: str) -> None:
    """Run the command as the start script of the package beside the ticks' file."""
    _register(trigger, "npm", "start", "--silent", "--prefix", str(Path(ticks).parent))


def _register(trigger: Trigger, *command: str, **env: str) -> None:
    trigger.assistant_command(command, env={"TICK_HOST": str(os.getpid()), **env})


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


class Tick(Struct, frozen=True):
    """Hold that an assistant was in a room, by the boot clock, in seconds; `host` is the replica's process id."""

    at: float
    pid: int
    host: int
    room: str

    @classmethod
    def read(cls, line: bytes) -> "Tick":
        """Read a line of a file of ticks."""
        at, pid, host, room = line.decode().split()
        return cls(float(at), int(pid), int(host), room)

    @property
    def assistant(self) -> tuple[int, int]:
        return self.host, self.pid


class Ticks:
    """Read a file of ticks as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self.all: list[Tick] = []

    def fresh(self) -> None:
        """Read the ticks that have come since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + 1 if whole else 0
        self.all += [Tick.read(line) for line in whole.splitlines()]

    async def until(
        self, rooms: Iterable[str], within: float, ticked: Callable[[Tick], bool] = lambda tick: True
    ) -> dict[str, float]:
        """Wait until an assistant in each room has a matching tick; return the times, by the boot clock.

        A room without one by then is left out.
        """
        missing, seen, looked_at = set(rooms), dict[str, float](), 0

        def all_seen() -> bool:
            nonlocal looked_at
            self.fresh()
            for tick in self.all[looked_at:]:
                if tick.room in missing and ticked(tick):
                    missing.remove(tick.room)
                    seen[tick.room] = tick.at
            looked_at = len(self.all)
            return not missing

        await until(all_seen, within)
        return seen

    def overlaps(self) -> list[Tick]:
        """List the ticks of an assistant that another had already replaced in its room."""
        self.fresh()
        return overlaps(self.all)

    def interruptions(self, rooms: Iterable[str], since: float) -> list[str]:
        """Return what is wrong if it was not one assistant that ticked in a room all the time since `since`."""
        self.fresh()
        problems = []
        for room in rooms:
            ticks = [tick for tick in self.all if tick.room == room and tick.at > since]
            times, there = [*(tick.at for tick in ticks), boot_time()], len({tick.assistant for tick in ticks})
            pause = max((b - a for a, b in pairwise(times)), default=math.inf)
            if there != 1 or pause > STALLED:
                problems.append(f"the assistant in {room} stopped: {there} there, {pause:.1f} s of silence")
        return problems


def overlaps(ticks: Iterable[Tick]) -> list[Tick]:
    """List the ticks of an assistant that another had already replaced in its room."""
    followed: dict[str, set[tuple[int, int]]] = {}
    current: dict[str, tuple[int, int]] = {}
    found = []
    for tick in sorted(ticks, key=lambda tick: tick.at):
        before = followed.setdefault(tick.room, set())
        now = current.get(tick.room)
        if tick.assistant in before:
            found.append(tick)
        elif now is not None and now != tick.assistant:
            before.add(now)
            current[tick.room] = tick.assistant
        else:
            current[tick.room] = tick.assistant
    return found
