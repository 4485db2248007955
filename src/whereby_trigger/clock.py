"""The clock of leases on one machine: it runs on while the machine sleeps, never jumps, and restarts at a boot."""

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

BootClock = Callable[[], tuple[str, float]]
"""Return the id of the machine's current boot and the seconds since: lease times are compared by both."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_time() -> float:
    """Return the seconds since the machine started."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    # Python's monotonic clock stops while a Mac sleeps.
    return time.clock_gettime(time.CLOCK_MONOTONIC) if sys.platform == "darwin" else time.monotonic()


@cache
def boot_id() -> str:
    """Return the id of the machine's current boot, read once for each process; "" if the platform has none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def boot_clock() -> tuple[str, float]:
    """Return this machine's boot id and the seconds since that boot."""
    return boot_id(), boot_time()
