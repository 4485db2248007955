"""Where a store of some kind is: each conformance test runs on one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from tests.support.clock import JumpingClock
from whereby_trigger.store import Store

TTL = 30.0


class Place(ABC):
    """Create replicas of one store and kill them, while time passes as the test says.

    Leases last `TTL` seconds by `clock`, which stands still; rooms are stamped by it too. `takeover_within` is the
    seconds until what a dead replica owns can be claimed: 0 if its death shows immediately, else `TTL`.
    """

    url: str
    clock: JumpingClock
    takeover_within: float

    @abstractmethod
    def replica(self) -> Store:
        """Return one more replica, not opened."""

    @abstractmethod
    def before_the_first(self) -> Store:
        """Return a replica of a store that never had one."""

    @abstractmethod
    async def crash(self, store: Store) -> None:
        """Leave a replica of this process as a kill would: nothing finished, nothing released."""

    @abstractmethod
    async def forget(self, store: Store) -> None:
        """Crash a replica and remove its row, so what it owns has an unknown owner."""

    @abstractmethod
    async def execute(self, statement: str) -> None:
        """Execute SQL as another program would; {rooms} and {runs} stand for the tables."""

    async def pass_time(self, seconds: float, *alive: Store) -> None:
        """Advance the clock while only these replicas renew their leases."""
        while seconds > 0:
            step = min(seconds, TTL - 1)
            self.clock.jump(step)
            await _renew(alive)
            seconds -= step

    async def outlast_leases(self, *alive: Store) -> None:
        """Advance the clock until every lease has run out, except those of these replicas."""
        self.clock.catch_up()
        await _renew(alive)
        await self.pass_time(TTL + 1, *alive)

    async def outlast_the_dead(self, *alive: Store) -> None:
        """Advance the clock until what a dead replica owns can be claimed; these replicas live on."""
        if self.takeover_within:
            await self.outlast_leases(*alive)

    async def bury(self, dead: Store, *alive: Store) -> None:
        """Crash a replica and wait until others can find it dead; those in `alive` live on."""
        await self.crash(dead)
        await self.outlast_the_dead(*alive)


async def _renew(stores: Iterable[Store]) -> None:
    for store in stores:
        assert await store.renew(TTL)
