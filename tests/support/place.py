"""Where a store of some kind is: what a conformance test is run on."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

from tests.support.clock import JumpingClock
from whereby_trigger.store import Store

TTL = 30.0


class Place(ABC):
    """Make replicas of one store, and let them die, while time goes by as the test says.

    Leases last `TTL` seconds by `clock`, which stands still; rooms are stamped by it too. `takeover_within` is the
    seconds after which what a dead replica has can be claimed: 0 where its death shows at once, else `TTL`.
    """

    url: str
    clock: JumpingClock
    takeover_within: float

    @abstractmethod
    def replica(self) -> Store:
        """Make one more replica, unopened."""

    @abstractmethod
    def before_the_first(self) -> Store:
        """Make a replica where there never was one."""

    @abstractmethod
    async def crash(self, store: Store) -> None:
        """Have a replica of this process leave what a kill would: nothing finished, nothing given back."""

    @abstractmethod
    async def forget(self, store: Store) -> None:
        """Have a replica crash, and remove its row: it owns something, and is nobody."""

    @abstractmethod
    async def execute(self, statement: str) -> None:
        """Execute SQL as another program would; {rooms} and {runs} stand for the tables."""

    async def pass_time(self, seconds: float, *alive: Store) -> None:
        """Let time pass in which these replicas, and no others, renew their leases."""
        while seconds > 0:
            step = min(seconds, TTL - 1)
            self.clock.jump(step)
            await _renew(alive)
            seconds -= step

    async def outlast_leases(self, *alive: Store) -> None:
        """Let so much time pass that every lease runs out, but those of these replicas."""
        self.clock.catch_up()
        await _renew(alive)
        await self.pass_time(TTL + 1, *alive)

    async def outlast_the_dead(self, *alive: Store) -> None:
        """Let so much time pass that what a dead replica has can be claimed; these replicas live on."""
        if self.takeover_within:
            await self.outlast_leases(*alive)

    async def bury(self, dead: Store, *alive: Store) -> None:
        """Have a replica crash, and let others, of which these live on, find it dead."""
        await self.crash(dead)
        await self.outlast_the_dead(*alive)


async def _renew(stores: Iterable[Store]) -> None:
    for store in stores:
        assert await store.renew(TTL)
