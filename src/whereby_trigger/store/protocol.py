"""What every store does: the verbs that the stages speak, and what each promises."""

import math
from collections.abc import Awaitable, Callable
from typing import Protocol

from whereby_trigger.store.records import Added, Arrival, Decision, Pending, Query, Record
from whereby_trigger.store.rooms import RoomStore


class Store(RoomStore, Protocol):
    """Remember webhooks and decisions, durably, for one replica among several.

    A write is committed and synced to disk before it returns; until it returns it may or may not have happened.
    Every verb raises StoreUnavailable where the store cannot do it now.
    """

    @property
    def location(self) -> str:
        """Where the store is, for a person: an absolute path, or a URL without its password."""
        ...

    @property
    def replica(self) -> str:
        """The id of this replica, under which it owns what it received; never used twice."""
        ...

    @property
    def life(self) -> int | None:
        """The descriptor of the lock that shows this replica alive for as long as any process holds it.

        None if the lease alone shows that.
        """
        ...

    async def open(self, changed: Callable[[], None]) -> None:
        """Open the store, migrate it, and call `changed` soon after another process has written.

        Raises StoreError where it cannot be used.
        """
        ...

    async def peek(self) -> None:
        """Open the store to read it only: nothing is created, migrated or taken over.

        Raises StoreError where there is no store, or it is not at this program's schema.
        """
        ...

    async def migrate(self) -> list[int]:
        """Create the store where there is none, bring it to this program's schema, and close it again.

        Return the numbers of the migrations applied. Raises StoreError where it cannot be used.
        """
        ...

    async def close(self) -> None:
        """Finish what was handed over, and let go of the store and of this replica's id."""
        ...

    def add(self, arrival: Arrival) -> Awaitable[Added]:
        """Store a webhook as this replica's, or count one more delivery of an id that is there already."""
        ...

    def decide(self, decision: Decision) -> Awaitable[bool]:
        """Commit a decision on a pending webhook of this replica; False where it is not that any more.

        A store that is away is waited for: a decision is never given up.
        """
        ...

    def blame(self, seq: int) -> Awaitable[int]:
        """Count one more attempt at a pending webhook before user code sees it; return the count.

        What ends the process is found out by this: a webhook that was in user code each time is not asked about again.
        """
        ...

    def note(self, id: str, error: str) -> None:
        """Add to a decision, without waiting for it, a listener's error that came after it."""
        ...

    def claim(self, max_age: float = math.inf) -> Awaitable[int]:
        """Take over pending webhooks whose replica is dead or that have none, and rooms; return how many.

        Of very many, some thousands at a time, so that the first are decided while others wait for the next call.

        The rooms of a dead replica wait for another, unless it has been dead for longer than `max_age` seconds;
        rooms that have waited for longer than that end. Nothing is taken over by one whose own lease is gone.
        One from a dead replica has the takeover counted: it may have been in user code when the replica died.
        """
        ...

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        """Read this replica's pending webhooks with a number above `after`, each room's in order of arrival."""
        ...

    def find(self, query: Query) -> Awaitable[list[Record]]:
        """Read stored webhooks."""
        ...

    def replay(self, query: Query, now: float) -> Awaitable[list[str]]:
        """Make decided webhooks pending again, without an owner and of age 0; return their ids."""
        ...

    def prune(self, before: float) -> Awaitable[int]:
        """Forget decided webhooks received before a time, in short transactions; return how many.

        One whose `kept_until` is still to come, by this machine's clock, is kept.
        """
        ...

    def ping(self, now: float) -> Awaitable[None]:
        """Write something small, to tell whether the store takes writes."""
        ...
