"""The protocol of every store: the methods that the stages call, what each promises, and the futures they return.

`Unread` is shared by those who put webhooks into a store and the one who reads them back.
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from whereby_trigger.clock import Lease
from whereby_trigger.errors import StoreBusy, StoreError, StoreUnavailable
from whereby_trigger.store.presence import Presence
from whereby_trigger.store.records import (
    NEWEST,
    PAGE,
    ActionQuery,
    ActionRecord,
    Added,
    Arrival,
    Decision,
    Holding,
    OldBody,
    PastWebhook,
    Pending,
    Query,
    Record,
    RefusalCount,
    ReplicaRecord,
    Rewrite,
    Room,
    RoomClaim,
    RoomMove,
    RoomQuery,
    RoomRequest,
    RunQuery,
    RunRecord,
    WebhooksAfter,
    Workload,
)
from whereby_trigger.store.states import RoomState
from whereby_trigger.store.stay import UNBOUNDED, Bounds

WORKLOAD_WITHIN = 1.0
"""Seconds that counting the workload may keep other reads of this replica waiting."""


class StoreErrors:
    """Count the failed attempts at a store, also those that are repeated. Any thread may count."""

    KINDS: Final[Mapping[str, type[StoreError]]] = {
        "busy": StoreBusy,
        "unavailable": StoreUnavailable,
        "refused": StoreError,
    }
    """The first kind that an error is of counts."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(self.KINDS, 0)
        self._lock = threading.Lock()

    def note(self, error: StoreError) -> None:
        """Count one failed attempt."""
        kind = next(kind for kind, type in self.KINDS.items() if isinstance(error, type))
        with self._lock:
            self.counts[kind] += 1


Told = Callable[[int], None]
"""A function that hears how many rows one more step has done."""


def unheard() -> None:
    """Stand in for a caller who does not serve, and need not know what others write."""


def untold(count: int) -> None:
    """Stand in for a caller who does not want to know how far something is."""


class RoomStore(Protocol):
    """Keep one open entry for each room, and the lease by which replicas own theirs."""

    def renew(self, ttl: float) -> Awaitable[bool]:
        """Extend this replica's lease to `ttl` seconds from now; return False if it has run out or is gone."""
        ...

    async def rejoin(self, ttl: float) -> None:
        """Give up this replica's id, with everything it owns, and take a new one."""
        ...

    def request(self, request: RoomRequest) -> Awaitable[RoomClaim]:
        """Make a room wait for an assistant, unless it has an open entry; an ending one gets a successor."""
        ...

    def take(self, slots: int, max_age: float = math.inf, bounds: Bounds = UNBOUNDED) -> Awaitable[list[Room]]:
        """Take at most `slots` waiting rooms for this replica, in order, as `starting`; none if its lease is gone.

        A room that has waited for longer than `max_age` seconds is left for `take_over` to end, one whose bound is
        reached for `end_waiting`. With `leave_when_empty`, a room that had an assistant before and is known to be empty
        waits until somebody comes.
        Beyond `slots` it returns the rooms that an earlier call took before it raised StoreUnavailable.
        """
        ...

    def move(self, move: RoomMove) -> Awaitable[bool]:
        """Move a room of this replica to a state; return False if it is not this replica's, or cannot move there."""
        ...

    def stop(self, key: str, reason: str) -> Awaitable[RoomState | None]:
        """Ask a room's assistant to end; return the state it was in, or None if the room has no open entry."""
        ...

    def rooms(self, *, limit: int | None = None, below: int = NEWEST) -> Awaitable[list[Room]]:
        """Return rooms with an id below `below`, newest first: all, or at most `limit`.

        Reading very many at once blocks other reads for seconds: `every_room` reads them page by page.
        """
        ...

    def find_rooms(self, query: RoomQuery) -> Awaitable[list[Room]]:
        """Return the entries of rooms that match a query, newest first."""
        ...

    def room_keys(self, name: str) -> Awaitable[list[str]]:
        """Return the keys of the rooms with a name, with its leading slash, of which the store has anything, sorted."""
        ...

    def find_runs(self, query: RunQuery) -> Awaitable[list[RunRecord]]:
        """Return the runs that match a query, newest first.

        A run begins when its room is taken, and ends with the move or the takeover that takes the room from its
        replica: both are in one commit.
        """
        ...

    def find_replicas(self, since: float, until: float) -> Awaitable[list[ReplicaRecord]]:
        """Return the replicas that were there between two times, and the last that ended before, by their starts.

        Those of earlier versions, which kept no log of replicas, are missing.
        """
        ...

    def stopping(self, bounds: Bounds = UNBOUNDED) -> Awaitable[list[Room]]:
        """Return this replica's rooms whose assistants were asked to end; those at a bound are asked to first.

        Times are by the store's clock.
        """
        ...

    async def end_waiting(self, bounds: Bounds) -> None:
        """End rooms that wait and are at a bound, whoever had them; some hundreds at most, so call it again."""
        ...

    def webhooks_after(self, after: int, keys: frozenset[str]) -> Awaitable[WebhooksAfter]:
        """Return the webhooks of the rooms `keys` with a number above `after`, or the first page of them."""
        ...

    def presences(self, keys: frozenset[str]) -> Awaitable[dict[str, Presence]]:
        """Return who is in each of the rooms `keys`, by the counts of the webhooks stored so far."""
        ...

    def occupied(self, limit: int) -> Awaitable[dict[str, Presence]]:
        """Return the rooms that are not empty by their newest counts: at most `limit`, latest change first."""
        ...


class Store(RoomStore, Protocol):
    """Store webhooks and decisions durably, for one replica among several.

    A write is committed and synced to disk before it returns; until then it may or may not have happened.
    Every method raises StoreUnavailable if the store is unavailable. Times are in seconds since the epoch.
    """

    @property
    def location(self) -> str:
        """The store's location for a person to read: an absolute path, or a URL without its password."""
        ...

    @property
    def replica(self) -> str:
        """The id under which this replica owns what it received; never used twice."""
        ...

    @property
    def life(self) -> int | None:
        """The descriptor of the lock that shows this replica alive while any process holds it.

        None if only the lease shows that.
        """
        ...

    @property
    def lease(self) -> Lease:
        """This replica's lease, which begins at `open`."""
        ...

    @property
    def spilled(self) -> int | None:
        """The number of deliveries that wait in a spill file for the store; None without a spill file."""
        ...

    @property
    def settled(self) -> bool:
        """True if no delivery waits that the store would take now."""
        ...

    @property
    def errors(self) -> StoreErrors:
        """The attempts at the store that have failed since it was made."""
        ...

    async def settle(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until no delivery waits that the store would take now."""
        ...

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        """Open and migrate the store; from then on `changed` is called soon after another process has written.

        Without `changed` it is opened to write something, and not to serve: the log of replicas does not tell of it.
        Raises StoreError if it cannot be used.
        """
        ...

    async def open_readonly(self) -> None:
        """Open the store for reading only: nothing is created, migrated or taken over.

        Raises StoreError if there is no store, or it is not at this program's schema.
        """
        ...

    async def migrate(self) -> list[int]:
        """Create the store if there is none, bring it to this program's schema, and close it again.

        Returns the numbers of the migrations applied. Raises StoreError if it cannot be used.
        """
        ...

    async def close(self) -> None:
        """Finish the writes submitted so far, and release the store, this replica's id and what it owns."""
        ...

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        """Store a webhook as this replica's, or count one more delivery if its id is stored already.

        If it is new, its count is merged into its room's presence in the same commit.
        """
        ...

    def decide(self, decision: Decision) -> "asyncio.Future[bool]":
        """Commit a decision on a pending webhook of this replica; return False if it is no longer that.

        It waits while the store is unavailable: a decision is never dropped.
        """
        ...

    def hold(self, holding: Holding) -> "asyncio.Future[bool]":
        """Put a pending webhook of this replica on hold; return False if it is no longer that.

        Its attempts, takeovers and crashes count from 0 again: its predicate was asked, and the process lives. Like a
        decision, it waits while the store is unavailable.
        """
        ...

    def ask_again(self, seqs: Sequence[int]) -> Awaitable[list[Pending]]:
        """Make webhooks that this replica holds pending again; return these, in order of arrival.

        If some are missing, ask for these again: if the answer is empty then, they were replayed, or an earlier call
        whose answer was lost has made them pending. Raises StoreBusy if somebody has locked some of them, and there are
        no others.
        """
        ...

    def begin_attempt(self, seq: int) -> Awaitable[int]:
        """Count one more attempt at a pending webhook before user code sees it; return the count.

        The count survives a crash: a webhook that was in user code at each of several crashes is not tried again.
        """
        ...

    def append_error(self, id: str, error: str) -> None:
        """Add a listener's error to a decision after it was committed; does not wait for the write."""
        ...

    def take_over(self, max_age: float = math.inf) -> Awaitable[int]:
        """Take over undecided webhooks that have no replica or a dead one, and rooms; return how many.

        One that was held becomes pending: nobody has watched its room meanwhile. No takeover is counted, since it was
        not in user code. It keeps the time at which it is due.

        One call takes over some thousands at most: the first are decided while the others wait for the next call.

        The rooms of a dead replica wait for another, unless its lease ran out more than `max_age` seconds ago. Rooms
        that have waited longer than that end, pauses before restarts not counted. A replica whose own lease is gone
        takes over nothing. A webhook from a dead replica has its crashes counted, since it may have been in user code
        when the replica died: not one from a replica that stopped, or that lost its lease and went on under another id.
        """
        ...

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        """Return at most `limit` pending webhooks of this replica with a number above `after`, in order of arrival."""
        ...

    def newest(self) -> Awaitable[int]:
        """Return the highest number of a stored webhook, or 0; a lower one may still be committed seconds later."""
        ...

    def find(self, query: Query) -> Awaitable[list[Record]]:
        """Return the stored webhooks that match a query, newest first."""
        ...

    def history(self, after: int, limit: int) -> Awaitable[list[PastWebhook]]:
        """Return at most `limit` stored webhooks with a number above `after`, in order of arrival."""
        ...

    def first_since(self, moment: float) -> Awaitable[int | None]:
        """Return the lowest number of a webhook received at `moment` or later, or None if there is none."""
        ...

    def replay(self, query: Query, now: float) -> Awaitable[list[str]]:
        """Make decided and held webhooks pending again, without owner or hold, and with age 0; return their ids."""
        ...

    def replayable(self, query: Query) -> Awaitable[list[str]]:
        """Return the ids of the webhooks that `replay` would make pending, newest first."""
        ...

    def prunable(self, before: float) -> Awaitable[int]:
        """Return how many webhooks `prune` would delete."""
        ...

    def prune(self, before: float, pruned: Told = untold) -> Awaitable[int]:
        """Delete decided webhooks received before a time, in short transactions; return how many.

        `pruned` is called after each transaction with how many it deleted.
        A webhook is kept until its `kept_until`, by this machine's clock. Also forgets entries, runs and replicas that
        ended before, the presence of rooms without an open entry whose last count came before, and counts of refusals
        and actions from before.
        """
        ...

    def add_refusals(self, counts: Sequence[RefusalCount]) -> Awaitable[None]:
        """Store how many deliveries replicas refused so far in each minute.

        Of two counts for one minute, reason and replica, the higher one stays: a count that is stored twice, because an
        answer was lost, counts once.
        """
        ...

    def refusals(self, since: float, until: float) -> Awaitable[list[RefusalCount]]:
        """Return the refusals of each minute that overlaps the time from `since` to `until`, oldest first."""
        ...

    def add_action(self, action: ActionRecord) -> Awaitable[None]:
        """Store what a person did by hand; once, if its id comes twice."""
        ...

    def find_actions(self, query: ActionQuery) -> Awaitable[list[ActionRecord]]:
        """Return what people did by hand, newest first."""
        ...

    def workload(self) -> Awaitable[Workload]:
        """Count what waits and what is open now, for all replicas; gives up after WORKLOAD_WITHIN seconds."""

    def records_after(self, after: int, limit: int) -> Awaitable[list[Record]]:
        """Return at most `limit` stored webhooks with a number above `after`, in order of arrival."""
        ...

    def old_bodies(self, before: float, after: tuple[float, int], limit: int) -> Awaitable[list[OldBody]]:
        """Return at most `limit` decided webhooks received before a time, in the order of (received_at, seq).

        `after` is the last of the page before: its time and its number.
        """
        ...

    def rewrite(self, rewrites: Sequence[Rewrite], now: float, *, silence: bool = False) -> Awaitable[int]:
        """Replace the bodies of decided webhooks and delete their errors; return how many are still decided.

        From now on they cannot be replayed, and keep no errors. With `silence`, what assistants raised or wrote in
        their rooms is deleted too, and what those write that are there now is not kept.
        """
        ...

    def drop(self, seqs: Sequence[int], room: str, now: float) -> Awaitable[int]:
        """Delete webhooks in any state; and of a room, a key or a name unless it is "", the entries, runs and presence.

        A webhook that is kept until later than `now` is emptied instead. An entry that has an assistant stays, without
        its successor, and what the assistant writes is not kept. Returns how many webhooks were deleted or emptied.
        """
        ...

    async def wipe(self, *, rewrite: bool | None) -> str:
        """Remove from the store's files what was deleted or replaced; return in words what may be left, or "".

        With `rewrite` the tables are written again, which holds up every write meanwhile; None means only if that
        is a matter of a second, and False never.
        """
        ...

    def ping(self, now: float) -> Awaitable[None]:
        """Write something small to find out if the store takes writes; raises StoreError if it does not."""
        ...


class Unspilled:
    """Implement the spill's part of the protocol for a store without a spill file."""

    spilled: int | None = None
    settled = True

    async def settle(self, timeout: float) -> None:
        return


async def every_room(store: RoomStore) -> AsyncGenerator[Room, None]:
    """Yield every room, newest first, read a page at a time; one that is added meanwhile may be missing."""
    below = NEWEST
    while page := await store.rooms(limit=PAGE, below=below):
        for room in page:
            yield room
        below = page[-1].id


async def read_again(store: RoomStore, rooms: Collection[Room]) -> dict[int, Room]:
    """Return the entries of rooms as they are now, by their ids, without those that are gone.

    One query reads all that a webhook has asked for, and one each of the few that somebody asked for by hand.
    """
    found = await store.find_rooms(RoomQuery(webhooks=tuple({one.webhook for one in rooms if one.webhook is not None})))
    for by_hand in [one for one in rooms if one.webhook is None]:
        found += await store.find_rooms(RoomQuery(id=by_hand.id))
    return {one.id: one for one in found}


class Write(asyncio.Future[Any]):
    """Resolve to the outcome of a write; `held_up` is True while another transaction has locked its row."""

    held_up = False


def refused(why: str) -> "asyncio.Future[Any]":
    """Return a future that has failed with StoreUnavailable."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(StoreUnavailable(why))
    return future


def ignore_result(written: "asyncio.Future[Any]") -> None:
    """Retrieve the outcome of a future that nobody awaits: asyncio would log its error, with the values in it."""
    if not written.cancelled():
        written.exception()


class Unread:
    """Know whether this replica has pending webhooks in its store that are not queued, and wake who reads them.

    They may be older than what arrives, which is not queued before they have been read: so no webhook overtakes an
    older one of its room.
    """

    def __init__(self) -> None:
        # Until the store has been read once, an older webhook of any room may be in it.
        self.behind = True
        self._missed = False
        self._readable = True
        self.due = True
        self.woken = asyncio.Event()

    @property
    def awaited(self) -> bool:
        """Whether there are such webhooks, in a store that can be read."""
        return self.behind and self._readable

    def fall_behind(self) -> None:
        """Note that there are webhooks in the store that are not queued."""
        self.behind = self._missed = self._readable = True

    def look(self) -> None:
        """Ask for the store to be read now."""
        self.due = True
        self.woken.set()

    def begin_reading(self) -> None:
        """Note that the store is about to be read."""
        self._missed = False

    def end_reading(self, *, complete: bool) -> None:
        """Note that the store was read, to its end or not."""
        if complete and not self._missed:
            self.behind = False

    def cannot_read(self) -> None:
        """Note that the store cannot be read now: a drain leaves it to the next start."""
        self._readable = False
