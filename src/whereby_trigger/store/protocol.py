"""What every store does: the verbs that the stages speak, and what each promises."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

from whereby_trigger.lease import Lease
from whereby_trigger.store.records import (
    NEWEST,
    PAGE,
    Added,
    Arrival,
    Decision,
    Pending,
    Query,
    Record,
    Room,
    RoomClaim,
    RoomMove,
    RoomRequest,
    WebhooksAfter,
)
from whereby_trigger.store.states import RoomState


class RoomStore(Protocol):
    """Keep one open entry for each room, and the lease by which replicas own theirs."""

    def renew(self, ttl: float) -> Awaitable[bool]:
        """Extend this replica's lease to `ttl` seconds from now; False where it has run out or is gone."""
        ...

    async def rejoin(self, ttl: float) -> None:
        """Give up this replica's id, with all that it owns, and take a new one."""
        ...

    def request(self, request: RoomRequest) -> Awaitable[RoomClaim]:
        """Let a room wait for an assistant, unless it has an open entry; one that is ending gets a successor."""
        ...

    def take(self, slots: int, max_age: float = math.inf) -> Awaitable[list[Room]]:
        """Make at most `slots` waiting rooms this replica's, in order, as `starting`; none where its lease is gone.

        One that has waited for longer than `max_age` seconds is left, for `claim` to end.
        Beyond `slots` it gives those that an earlier call took before it raised StoreUnavailable.
        """
        ...

    def move(self, move: RoomMove) -> Awaitable[bool]:
        """Change a room of this replica; False where it is not this replica's, or not in a state before that one."""
        ...

    def stop(self, key: str, reason: str) -> Awaitable[RoomState | None]:
        """Ask a room's assistant to end; return the state it was in, None where the room has no open entry."""
        ...

    def rooms(self, *, limit: int | None = None, below: int = NEWEST) -> Awaitable[list[Room]]:
        """Read rooms with an id below `below`, newest first: every one, or at most `limit`.

        Of very many, all at once take seconds in which nothing else is done: `every_room` reads them page by page.
        """
        ...

    def stopping(self) -> Awaitable[list[Room]]:
        """Read this replica's rooms whose assistants are asked to end."""
        ...

    def webhooks_after(self, after: int, keys: frozenset[str]) -> Awaitable[WebhooksAfter]:
        """Read the webhooks of some rooms with a number above `after`, or the first of them."""
        ...


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

    @property
    def lease(self) -> Lease:
        """This replica's lease, counted from `open` on."""
        ...

    @property
    def spilled(self) -> int | None:
        """How many deliveries wait in a file for the store to take them; None if none can."""
        ...

    @property
    def settled(self) -> bool:
        """Whether no delivery waits that the store would take now."""
        ...

    async def settle(self, timeout: float) -> None:
        """Wait until no delivery waits that the store would take now, at most `timeout` seconds."""
        ...

    async def open(self, changed: Callable[[], None]) -> None:
        """Open the store, migrate it, and call `changed` soon after another process has written.

        Raises StoreError where it cannot be used.
        """
        ...

    async def open_readonly(self) -> None:
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

    def begin_attempt(self, seq: int) -> Awaitable[int]:
        """Count one more attempt at a pending webhook before user code sees it; return the count.

        What ends the process is found out by this: a webhook that was in user code each time is not asked about again.
        """
        ...

    def append_error(self, id: str, error: str) -> None:
        """Add to a decision, without waiting for it, a listener's error that came after it."""
        ...

    def take_over(self, max_age: float = math.inf) -> Awaitable[int]:
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


class Unspilled:
    """What a store says of a spill if it has none."""

    spilled: int | None = None
    settled = True

    async def settle(self, timeout: float) -> None:
        return


async def every_room(store: RoomStore) -> AsyncGenerator[Room, None]:
    """Read every room, newest first, a page at a time; one that asks meanwhile may be left out."""
    below = NEWEST
    while page := await store.rooms(limit=PAGE, below=below):
        for room in page:
            yield room
        below = page[-1].id
