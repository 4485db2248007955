"""The clock of leases on one machine: it goes on while the machine sleeps, never jumps, and starts anew at a boot."""

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

BootClock = Callable[[], tuple[str, float]]
"""Tell which start of the machine this is, and the seconds since: what lease times are compared by."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_time() -> float:
    """Read the seconds since the machine started."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    # Python's monotonic clock stands still while a Mac sleeps.
    return time.clock_gettime(time.CLOCK_MONOTONIC) if sys.platform == "darwin" else time.monotonic()


@cache
def boot_id() -> str:
    """Tell which start of the machine this is, as long as this process lives; "" where the platform does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def boot_clock() -> tuple[str, float]:
    """Read this machine's clock of leases."""
    return boot_id(), boot_time()
