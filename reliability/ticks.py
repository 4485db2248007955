"""The ticks of fake assistants: who was in which room when, and whether two were ever in one at the same time."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from whereby_trigger.testing.program import until

TICKER = Path(__file__).with_name("ticker.py")


def ticking(ticks: str) -> list[str]:
    """Return the command of an assistant that ticks in a file."""
    return [sys.executable, "-S", str(TICKER), ticks]


class Tick(Struct, frozen=True):
    """Hold that an assistant was in a room, by the boot clock, in seconds; `host` is the replica's process id."""

    at: float
    pid: int
    host: int
    room: str

    @property
    def assistant(self) -> tuple[int, int]:
        return self.host, self.pid


class Ticks:
    """Read a file of ticks as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self.all: list[Tick] = []

    def fresh(self) -> list[Tick]:
        """Return the ticks that have come since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + 1 if whole else 0
        ticks = [_tick(line) for line in whole.splitlines()]
        self.all += ticks
        return ticks

    async def until(self, rooms: Iterable[str], ticked: Callable[[Tick], bool], within: float) -> dict[str, float]:
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


def _tick(line: bytes) -> Tick:
    at, pid, host, room = line.decode().split()
    return Tick(float(at), int(pid), int(host), room)
