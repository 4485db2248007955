"""The clock of a store in tests: it shows the time of leases and of rooms alike, and a test may move it forward."""

import math
import time
from collections.abc import Callable

from whereby_trigger.clock import Clock, boot_clock


class JumpingClock(Clock):
    """Follow this machine's clocks, plus the jumps; a `standing` one shows whole seconds and moves only by jumps.

    Called, it is a clock of leases; `now` is the time that rows are stamped with, in seconds since the epoch.
    """

    def __init__(self, *, standing: bool = False) -> None:
        super().__init__(self.now, lambda: self()[1])
        self._stands_at = _whole_seconds(math.floor) if standing else None
        self._ahead = 0.0
        self._boots = 0

    def __call__(self) -> tuple[str, float]:
        boot, at = boot_clock()
        since_boot = at if self._stands_at is None else self._stands_at[0]
        return (f"{boot}+{self._boots}" if self._boots else boot), since_boot + self._ahead

    def now(self) -> float:
        """Return the time of day."""
        return (time.time() if self._stands_at is None else self._stands_at[1]) + self._ahead

    def jump(self, seconds: float) -> None:
        """Move it forward."""
        self._ahead += seconds

    def catch_up(self) -> None:
        """Move a standing clock to the machine's time, which other processes use."""
        if self._stands_at is not None:
            self._stands_at = _whole_seconds(math.ceil)

    def reboot(self) -> None:
        """Simulate a restart of the machine, with less time since."""
        self._boots += 1
        self._ahead -= boot_clock()[1] / 2


def _whole_seconds(whole: Callable[[float], int]) -> tuple[int, int]:
    return whole(boot_clock()[1]), whole(time.time())
