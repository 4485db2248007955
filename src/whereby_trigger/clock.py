"""The clocks of one machine, waiting by them, and a replica's lease as this process counts it.

The boot clock is that of leases and of all that comes due: it runs on while the machine sleeps, never jumps, and
restarts at a boot. The wall clock stamps what is stored.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import Final

BootClock = Callable[[], tuple[str, float]]
"""Return the id of the machine's current boot and the seconds since: lease times are compared by both."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


boot_time: Callable[[], float]
"""Return the seconds since the machine started."""
if sys.platform == "linux":
    boot_time = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
elif sys.platform == "darwin":
    # Python's monotonic clock stops while a Mac sleeps.
    boot_time = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
else:
    boot_time = time.monotonic


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


LONGEST_WAIT: Final = 5.0
"""Seconds after which the time is read again, however far off it is: a timer stands still while the machine sleeps."""


class Clock:
    """Tell the time and wait by it: the machine's own clocks, which a test replaces by one that it can move.

    `wall` returns the seconds since the epoch, `boot` those since the machine started. What comes due at a time waits
    with `sleep`, `until` or `call_later`. What looks again and again waits with `poll`.
    """

    def __init__(self, wall: Callable[[], float] = time.time, boot: Callable[[], float] = boot_time) -> None:
        self.wall = wall
        self.boot = boot

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        await asyncio.sleep(seconds)

    async def until(self, event: asyncio.Event, at: float) -> None:
        """Wait until an event is set, or the boot clock shows `at`, which may be infinity."""
        if at == inf:
            await event.wait()
        while not event.is_set() and (left := at - self.boot()) > 0:
            await self.poll(event, min(left, LONGEST_WAIT))

    async def poll(self, event: asyncio.Event, seconds: float) -> None:
        """Wait until an event is set, at most some seconds, before the next look at what others change."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call a function after some seconds."""
        asyncio.get_running_loop().call_later(seconds, callback)


MACHINE: Final = Clock()
"""The clocks of this machine."""


RENEWALS = 6
"""A lease is renewed this often in the time it lasts."""


def margins(ttl: float) -> tuple[float, float]:
    """Return how many seconds early a lease counts as lost, and how long before that assistants are told to end."""
    return min(1.0, ttl / 30), min(5.0, ttl / RENEWALS)


GUARD_NOTICE = 2.2
"""Maximum seconds before the end of a lease at which a guard, if nobody extends its deadline, ends its assistant."""


class Lease:
    """Count down a lease of `ttl` seconds, on the boot clock.

    `deadline` is when nothing of this replica may run any more; `begun` is set once there has been a lease at all.
    """

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.margin, self.notice = margins(ttl)
        # Shorter than `notice`: a guard acts only where this process, which knows of each renewal, has not.
        self.guard_notice = min(GUARD_NOTICE, ttl / 10)
        self.deadline = 0.0
        self.begun = asyncio.Event()
        self._renewed = asyncio.Event()

    @property
    def held(self) -> bool:
        """Whether what this replica owns is surely still its own."""
        return boot_time() < self.deadline

    def begin(self, sent: float) -> None:
        """Count from `sent`, when the store was asked for the lease."""
        self.deadline = sent + self.ttl - self.margin
        self.begun.set()
        renewed, self._renewed = self._renewed, asyncio.Event()
        renewed.set()

    def lose(self) -> None:
        """Hold it no longer."""
        self.deadline = 0.0

    async def renewal(self) -> None:
        """Wait for the next time that the lease begins or is renewed."""
        await self._renewed.wait()
