"""A replica's lease as this process counts it: until when what the replica owns is surely its own."""

import asyncio

from whereby_trigger.clock import boot_time

RENEWALS = 6
"""A lease is renewed this often in the time it lasts."""


def margins(ttl: float) -> tuple[float, float]:
    """Return how many seconds early a lease counts as lost, and how long before that assistants are told to end."""
    return min(1.0, ttl / 30), min(5.0, ttl / RENEWALS)


class Lease:
    """Count down a lease of `ttl` seconds, on the boot clock.

    `deadline` is when nothing of this replica may run any more; `begun` is set once there has been a lease at all.
    """

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.margin, self.notice = margins(ttl)
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
