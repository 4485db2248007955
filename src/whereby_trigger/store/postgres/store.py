"""The store on a PostgreSQL database: a few connections, each with its work in order; times are the database's."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from whereby_trigger.clock import Lease, boot_time
from whereby_trigger.errors import StoreBusy, StoreError, StoreUnavailable
from whereby_trigger.loggers import own_logger
from whereby_trigger.process import check_effect
from whereby_trigger.store.postgres import history, lease, opening, presence, privacy, rooms, webhooks
from whereby_trigger.store.postgres.address import NO_SERVICES, DatabaseAddress, FollowedAddress, Services, address_of
from whereby_trigger.store.postgres.connection import LOCK_WITHIN, Connection, ManagedConnection, rolled_back, unusable
from whereby_trigger.store.postgres.cursor import SettledCursor
from whereby_trigger.store.postgres.opening import Remark
from whereby_trigger.store.postgres.webhooks import Owned
from whereby_trigger.store.postgres.writer import (
    ADD,
    APPEND_ERROR,
    ARRIVALS,
    BEGIN_ATTEMPT,
    CALL,
    DECIDE,
    FOR_EACH,
    HOLD,
    LONG_WORK_WITHIN,
    MOVE,
    REQUEST,
    REQUEST_UNCHANGED,
    ROW_WITHIN,
    STOP,
    WRITERS,
    Call,
    PostgresWriter,
    Verb,
    close_all,
)
from whereby_trigger.store.presence import Presence
from whereby_trigger.store.protocol import (
    WORKLOAD_WITHIN,
    StoreErrors,
    Told,
    Unspilled,
    ignore_result,
    refused,
    unheard,
    untold,
)
from whereby_trigger.store.records import (
    NEWEST,
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
from whereby_trigger.store.states import OWNED, RoomState
from whereby_trigger.store.stay import UNBOUNDED, Bounds

logger = own_logger("whereby_trigger.store")

T = TypeVar("T")

CLOSE_TIMEOUT = 4.0
"""Seconds that closing waits for an unavailable database, three quarters of it for outstanding writes."""

SMALL = 64 * 1024 * 1024
"""Bytes of tables that are written again in about a second."""

READERS_WITHIN = 5.0
"""Seconds that the removal of old rows waits for those who may still read them."""

PRUNE_ROWS = 500
TAKEN_AT_ONCE = 5000
BOUNDED_AT_ONCE = 500
"""Rooms asked to end in one transaction: each is locked, and the server has room for so many locks only."""

LOOK_WITHIN = 30.0
READ_WITHIN = 10.0
"""Seconds a replica waits for a read: nothing is decided while the backlog hangs on a silent connection."""

POLL = 0.5
"""Seconds between two checks for what other replicas have written, give or take a fifth."""


class PostgresStore(Unspilled):
    """Store webhooks, decisions and rooms in a PostgreSQL database that replicas on many machines may share.

    `lease_ttl` is the number of seconds for which this replica counts as alive after each renewal, by the database's
    clock. `services` are the PostgreSQL services that the environment names. `newest` returns the URL as it is now,
    for each new connection: its user and password may have been replaced. Raises ConfigError if the URL cannot be read.
    """

    def __init__(
        self,
        url: str,
        lease_ttl: float = 30.0,
        services: Services = NO_SERVICES,
        newest: Callable[[], str] | None = None,
    ) -> None:
        self._address: DatabaseAddress | FollowedAddress = (
            address_of(url, services) if newest is None else FollowedAddress(url, services, newest)
        )
        self.replica = uuid4().hex
        self.lease = Lease(lease_ttl)
        self.errors = StoreErrors()
        self._writing: _OpenPostgres | None = None
        self._reading: PostgresWriter | None = None
        self._unanswered: tuple[str, ...] = ()
        self._rejoined = False
        self._joined_at = 0.0
        self._cursor = SettledCursor()
        self._keys: dict[int, str] = {}
        self._unsafe = ""

    @property
    def location(self) -> str:
        return self._address.location

    @property
    def life(self) -> None:
        return None

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        check_effect("opening a store to write")
        for warning in await self._once(partial(self._enter, logged=changed is not None), LONG_WORK_WITHIN):
            logger.warning("%s", warning)
        self._reading = PostgresWriter(ManagedConnection(self._address, READ_WITHIN, serving=True), self.errors)
        self._writing = _OpenPostgres(self._address, changed or unheard, self.errors)
        self.lease.begin(self._joined_at)

    async def open_readonly(self) -> None:
        schema = await self._once(partial(opening.check_admitted, location=self.location), LOOK_WITHIN)
        if schema == 0:
            raise StoreError(f"there is no store at {self.location}: start the trigger once, or name another")
        if schema < opening.SCHEMA:
            raise StoreError(
                f"the store {self.location} is at schema {schema}, this program reads {opening.SCHEMA}: "
                "run `whereby-trigger db migrate`, or start the trigger once"
            )
        self._reading = PostgresWriter(ManagedConnection(self._address, LOOK_WITHIN), self.errors)

    async def migrate(self) -> list[int]:
        return await self._once(self._migrate, LONG_WORK_WITHIN)

    async def look(self) -> list[Remark]:
        """Return what was found about the database; it also tries to write, and leaves nothing there.

        Raises StoreError if the database cannot be reached, or refuses us.
        """
        return await self._once(self._look, LOOK_WITHIN)

    async def close(self) -> None:
        writing, reading, self._writing, self._reading = self._writing, self._reading, None, None
        try:
            if writing is not None:
                await writing.close(partial(lease.leave, id=self.replica))
        finally:
            if reading is not None:
                await reading.close(0)

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        writer = ARRIVALS[hash(arrival.room or arrival.id) % len(ARRIVALS)]
        return self._write(writer, ADD, Owned(arrival, self.replica))

    def decide(self, decision: Decision) -> "asyncio.Future[bool]":
        return self._write("decisions", DECIDE, Owned(decision, self.replica))

    def hold(self, holding: Holding) -> "asyncio.Future[bool]":
        return self._write("decisions", HOLD, Owned(holding, self.replica))

    async def ask_again(self, seqs: Sequence[int]) -> list[Pending]:
        ask_again = partial(webhooks.ask_again, seqs=seqs, owner=self.replica)
        asked: list[Pending] | None = await self._call("decisions", ask_again)
        if asked is None:
            raise StoreBusy("another transaction has locked it, see pg_stat_activity")
        return asked

    def begin_attempt(self, seq: int) -> Awaitable[int]:
        return self._write("decisions", BEGIN_ATTEMPT, Owned(seq, self.replica))

    def append_error(self, id: str, error: str) -> None:
        self._write("decisions", APPEND_ERROR, (id, error)).add_done_callback(ignore_result)

    async def take_over(self, max_age: float = math.inf) -> int:
        total = 0
        searched: set[str] = set()

        def take(connection: Connection) -> Awaitable[int | None]:
            return lease.take_over(connection, self.replica, max_age, self._look_in, searched, rejoined=self._rejoined)

        while total < TAKEN_AT_ONCE:
            taken = await self._call("upkeep", take)
            if taken is None:
                break
            total += taken
        return total

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        return self._read(partial(webhooks.pending, owner=self.replica, after=after, limit=limit))

    def newest(self) -> Awaitable[int]:
        return self._read(webhooks.newest)

    def find(self, query: Query) -> Awaitable[list[Record]]:
        return self._read(partial(webhooks.find, query=query))

    def history(self, after: int, limit: int) -> Awaitable[list[PastWebhook]]:
        return self._read(partial(webhooks.history, after=after, limit=limit))

    def first_since(self, moment: float) -> Awaitable[int | None]:
        return self._read(partial(webhooks.first_since, moment=moment))

    def replay(self, query: Query, now: float) -> Awaitable[list[str]]:
        return self._call("replays", partial(webhooks.replay, query=query, now=now))

    def replayable(self, query: Query) -> Awaitable[list[str]]:
        return self._read(partial(webhooks.replayable, query=query))

    def prunable(self, before: float) -> Awaitable[int]:
        return self._read(partial(webhooks.prunable, before=before, now=time.time()))

    async def prune(self, before: float, pruned: Told = untold) -> int:
        forgotten = await self._prune_each(partial(webhooks.prune, now=time.time()), before, pruned)
        # A transaction for each page: it must not hold locks on rows of several tables. Each page is whole alone, since
        # a room goes with its runs: a kill in between leaves nothing but old rows, for the next prune.
        await self._prune_each(history.forget_runs, before)
        await self._prune_each(rooms.forget, before)
        await self._prune_presence(before)
        await self._prune_each(history.forget_refusals, before)
        await self._prune_each(lease.forget_replicas, before)
        await self._prune_each(history.forget_actions, before)
        return forgotten

    async def _prune_each(self, prune: Callable[..., Any], before: float, pruned: Told = untold) -> int:
        total, forgotten = 0, PRUNE_ROWS
        while forgotten == PRUNE_ROWS:
            forgotten = await self._call("upkeep", partial(prune, before=before, limit=PRUNE_ROWS))
            total += forgotten
            pruned(forgotten)
        return total

    async def _prune_presence(self, before: float) -> None:
        forgotten = [""]
        while forgotten:
            forget = partial(presence.forget, before=before, after=forgotten[-1], limit=PRUNE_ROWS)
            forgotten = await self._call("upkeep", forget)

    def add_refusals(self, counts: Sequence[RefusalCount]) -> Awaitable[None]:
        return self._call("upkeep", partial(history.add_refusals, counts=counts))

    def add_action(self, action: ActionRecord) -> Awaitable[None]:
        return self._call("upkeep", partial(history.add_action, action=action))

    def find_actions(self, query: ActionQuery) -> Awaitable[list[ActionRecord]]:
        return self._read(partial(history.find_actions, query=query))

    def refusals(self, since: float, until: float) -> Awaitable[list[RefusalCount]]:
        return self._read(partial(history.read_refusals, since=since, until=until))

    async def workload(self) -> Workload:
        found: Workload | None = await self._read(partial(webhooks.workload, within=WORKLOAD_WITHIN))
        if found is None:
            raise StoreUnavailable(f"the database did not count what waits within {WORKLOAD_WITHIN:g} s")
        return found

    def records_after(self, after: int, limit: int) -> Awaitable[list[Record]]:
        return self._read(partial(privacy.records_after, after=after, limit=limit))

    def old_bodies(self, before: float, after: tuple[float, int], limit: int) -> Awaitable[list[OldBody]]:
        return self._read(partial(privacy.old_bodies, before=before, after=after, limit=limit))

    def rewrite(self, rewrites: Sequence[Rewrite], now: float, *, silence: bool = False) -> Awaitable[int]:
        return self._call("upkeep", partial(privacy.rewrite, rewrites=rewrites, silence=silence, now=now))

    def drop(self, seqs: Sequence[int], room: str, now: float) -> Awaitable[int]:
        return self._call("upkeep", partial(privacy.drop, seqs=seqs, room=room, now=now))

    async def wipe(self, *, rewrite: bool | None) -> str:
        # A trigger at work leaves this to autovacuum.
        if rewrite is False:
            return ""
        wipe = partial(privacy.wipe, rewrite=bool(rewrite), always_below=SMALL, wait=READERS_WITHIN)
        return await self._once(wipe, LONG_WORK_WITHIN)

    async def ping(self, now: float) -> None:
        if self._unsafe:
            raise StoreError(self._unsafe)
        await self._call("lease", partial(lease.ping, id=self.replica))

    def renew(self, ttl: float) -> Awaitable[bool]:
        return self._call("lease", partial(self._renew, ttl=ttl))

    async def rejoin(self, ttl: float) -> None:
        new = uuid4().hex
        await self._call("lease", partial(lease.rejoin, old=self.replica, new=new, ttl=ttl))
        self.replica, self._rejoined = new, True

    async def request(self, request: RoomRequest) -> RoomClaim:
        # Most requests are of rooms that have an assistant. Each that changes something takes a transaction.
        claim: RoomClaim | None = await self._write("rooms", REQUEST_UNCHANGED, request)
        return claim or await self._write("rooms", REQUEST, request)

    async def take(self, slots: int, max_age: float = math.inf, bounds: Bounds = UNBOUNDED) -> list[Room]:
        tickets, self._unanswered = (*self._unanswered, uuid4().hex), ()
        try:
            take = partial(rooms.take, owner=self.replica, slots=slots, tickets=tickets, max_age=max_age, bounds=bounds)
            taken = list(await self._call("rooms", take))
        except StoreUnavailable:
            self._unanswered = tickets
            raise
        self._keys |= {room.id: room.key for room in taken}
        return taken

    def move(self, move: RoomMove) -> Awaitable[bool]:
        key = self._keys.get(move.id, "") if move.state in OWNED else self._keys.pop(move.id, "")
        return self._write("rooms", MOVE, rooms.Move(move, key or f"room {move.id}", self.replica, uuid4().hex))

    def stop(self, key: str, reason: str) -> Awaitable[RoomState | None]:
        return self._write("rooms", STOP, (key, reason))

    async def stopping(self, bounds: Bounds = UNBOUNDED) -> list[Room]:
        find = partial(rooms.stopping, owner=self.replica, bounds=bounds)
        found: list[Room] = await self._read(find)
        if await self._apply_bounds([room for room in found if room.stop is None], bounds):
            found = await self._read(find)
        return [room for room in found if room.stop is not None]

    async def end_waiting(self, bounds: Bounds) -> None:
        find = partial(rooms.waiting_at_bound, bounds=bounds, limit=BOUNDED_AT_ONCE)
        await self._apply_bounds(await self._read(find), bounds)

    async def _apply_bounds(self, found: list[Room], bounds: Bounds) -> bool:
        apply = partial(rooms.apply_bounds, rooms=found[:BOUNDED_AT_ONCE], owner=self.replica, bounds=bounds)
        if found:
            await self._call("rooms", apply)
        return bool(found)

    def rooms(self, *, limit: int | None = None, below: int = NEWEST) -> Awaitable[list[Room]]:
        return self._read(partial(rooms.read, limit=limit, below=below))

    def find_rooms(self, query: RoomQuery) -> Awaitable[list[Room]]:
        return self._read(partial(rooms.find, query=query))

    def room_keys(self, name: str) -> Awaitable[list[str]]:
        return self._read(partial(rooms.keys_of, name=name))

    def find_runs(self, query: RunQuery) -> Awaitable[list[RunRecord]]:
        return self._read(partial(history.find_runs, query=query))

    def find_replicas(self, since: float, until: float) -> Awaitable[list[ReplicaRecord]]:
        return self._read(partial(lease.find_replicas, since=since, until=until))

    def webhooks_after(self, after: int, keys: frozenset[str]) -> Awaitable[WebhooksAfter]:
        return self._read(partial(self._cursor.webhooks_after, after=after, keys=keys))

    def presences(self, keys: frozenset[str]) -> Awaitable[dict[str, Presence]]:
        return self._read(partial(presence.find, keys=keys))

    def occupied(self, limit: int) -> Awaitable[dict[str, Presence]]:
        return self._read(partial(presence.occupied, limit=limit))

    def _look_in(self, seconds: float) -> None:
        if self._writing is not None:
            self._writing.look_in(seconds)

    def _write(self, writer: str, verb: Verb, piece: Any) -> "asyncio.Future[Any]":
        if self._writing is None:
            return refused("the store is not open for writing: start the trigger first")
        return self._writing.writers[writer].submit(verb, piece)

    def _call(self, writer: str, work: Call) -> "asyncio.Future[Any]":
        return self._write(writer, CALL, work)

    async def _read(self, work: Call) -> Any:
        if self._reading is None:
            raise StoreUnavailable("the store is not open: start the trigger first")
        return await self._reading.submit(CALL, work)

    async def _enter(self, connection: Connection, *, logged: bool) -> list[str]:
        warnings = await opening.check(connection, self.location)
        if await opening.migrate(connection, self.location):
            await opening.check(connection, self.location)
        # Only now: a migration may take longer than a lease.
        self._joined_at = boot_time()
        await lease.join(connection, self.replica, self.lease.ttl, logged=logged)
        return warnings

    async def _renew(self, connection: Connection, ttl: float) -> bool:
        renewed = await lease.renew(connection, self.replica, ttl)
        # A reload of the server's settings can bring later what a start refuses.
        before, self._unsafe = self._unsafe, await opening.why_unsafe(connection, self.location)
        if self._unsafe != before:
            say = logger.error if self._unsafe else logger.info
            say("%s", self._unsafe or f"{self.location} is durable again")
        return renewed

    async def _migrate(self, connection: Connection) -> list[int]:
        await opening.check(connection, self.location)
        return await opening.migrate(connection, self.location)

    async def _look(self, connection: Connection) -> list[Remark]:
        remarks = await opening.look(connection, self.location)
        if all(remark.problem is None for remark in remarks):
            remarks.append(await self._try(connection))
        return remarks

    async def _try(self, connection: Connection) -> Remark:
        try:
            return Remark("schema", await self._try_to_enter(connection))
        except Exception as error:
            problem = unusable(self.location, error)
            return Remark("schema", str(problem), problem=problem)

    async def _try_to_enter(self, connection: Connection) -> str:
        schema = await opening.check_admitted(connection, self.location)
        if 0 < schema < opening.SCHEMA:
            return f"{schema}, which the next start brings to {opening.SCHEMA}"
        async with rolled_back(connection):
            await opening.migrate(connection, self.location)
            await lease.join(connection, self.replica, self.lease.ttl)
        return f"{schema}, and takes writes" if schema else "none yet, and the first start may make it"

    async def _once(self, work: Callable[[Connection], Awaitable[T]], within: float) -> T:
        """Do work on a connection of its own; raises StoreError, with the reason, if the database cannot be used."""
        connection = ManagedConnection(self._address, within)
        try:
            return await connection.run(work)
        except Exception as error:
            raise unusable(self.location, error) from error
        finally:
            await connection.close()


class _OpenPostgres:
    """Hold what writing needs: a writer for each kind of work that must not wait for another, and the poll."""

    def __init__(
        self, address: DatabaseAddress | FollowedAddress, changed: Callable[[], None], errors: StoreErrors
    ) -> None:
        self._address = address
        self._changed = changed
        self._sooner: asyncio.TimerHandle | None = None
        self.writers = {
            name: PostgresWriter(_connection_for(address, name, within), errors) for name, within in WRITERS.items()
        }
        self._polling = asyncio.create_task(_poll(changed), name="whereby-trigger poll")

    def look_in(self, seconds: float) -> None:
        """Check in `seconds`, if the poll comes later: a room whose replica died waits for the end of its lease."""
        if self._sooner is not None:
            self._sooner.cancel()
        self._sooner = asyncio.get_running_loop().call_later(seconds, self._changed) if seconds < POLL else None

    async def close(self, leave: Call) -> None:
        """Finish the writes submitted so far, then do `leave`, also if the wait for those is cancelled."""
        self._polling.cancel()
        if self._sooner is not None:
            self._sooner.cancel()
        end = asyncio.get_running_loop().time() + CLOSE_TIMEOUT
        try:
            await close_all((writer for name, writer in self.writers.items() if name != "lease"), CLOSE_TIMEOUT * 3 / 4)
        finally:
            self.writers["lease"].submit(CALL, leave).add_done_callback(ignore_result)
            await self.writers["lease"].close(max(CLOSE_TIMEOUT / 4, end - asyncio.get_running_loop().time()))


def _connection_for(address: DatabaseAddress | FollowedAddress, writer: str, within: float) -> ManagedConnection:
    lock_within = ROW_WITHIN if writer in FOR_EACH else LOCK_WITHIN
    return ManagedConnection(address, within, lock_within=lock_within, serving=True)


async def _poll(changed: Callable[[], None]) -> None:
    # Not by NOTIFY, which is lost behind a pooler of transactions. At random times: replicas must not all poll at once.
    while True:
        await asyncio.sleep(POLL * random.uniform(0.8, 1.2))  # noqa: S311
        changed()
