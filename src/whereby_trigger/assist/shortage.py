"""When to try again to start assistants, after the system had no thread, file or memory left for one."""

from typing import Final

from whereby_trigger.clock import Clock

SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 2.0
"""Seconds for which no assistant is started after the system had nothing left for one."""

LAPSE: Final = 1.0
"""Seconds after that in which they are started one at a time, and another failure makes the pause longer."""


class Shortage:
    """Hold that an assistant could not be started for what the system lacks, until a while after it was tried again.

    Until then none is started, so that the rooms are there for other replicas; then one at a time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._why = ""
        self._pause = 0.0
        self._over_at = 0.0

    @property
    def words(self) -> str:
        return self._why if self._clock.boot() < self._over_at + LAPSE else ""

    def note(self, why: str) -> float:
        """Take note of one more that could not be started; return the seconds until one is tried again."""
        # Of many that were started together, one makes the pause longer.
        if self._clock.boot() >= self._over_at:
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if self.words else SHORTEST_PAUSE
            self._over_at = self._clock.boot() + self._pause
        self._why = why
        return max(0.0, self._over_at - self._clock.boot())

    def slots(self, free: int) -> int:
        """Bound the rooms that are taken now."""
        if self._clock.boot() < self._over_at:
            return 0
        return min(free, 1) if self.words else free
