"""The store on a PostgreSQL database: a few connections, each with work in order, and time that is the database's."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from whereby_trigger.clock import boot_time
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.lease import Lease
from whereby_trigger.store.futures import ignore_result, refused
from whereby_trigger.store.postgres import checks, lease, migrations, rooms, webhooks
from whereby_trigger.store.postgres.checks import Remark
from whereby_trigger.store.postgres.connection import (
    LOCK_WITHIN,
    NO_SERVICES,
    Connection,
    DatabaseAddress,
    ManagedConnection,
    Services,
    address_of,
    rolled_back,
)
from whereby_trigger.store.postgres.errors import unusable
from whereby_trigger.store.postgres.webhooks import Owned, SettledCursor
from whereby_trigger.store.postgres.writer import KEPT, PostgresWriter, Verb
from whereby_trigger.store.protocol import Unspilled
from whereby_trigger.store.records import (
    NEWEST,
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
from whereby_trigger.store.states import OWNED, RoomState

logger = logging.getLogger("whereby_trigger.store")

T = TypeVar("T")
Work = Callable[[Connection], Awaitable[Any]]

CLOSE_TIMEOUT = 4.0
"""Seconds for which an end waits for a database that is away, three quarters of it for what is to be written."""

PRUNE_ROWS = 500
CLAIMED_AT_ONCE = 5000
LOOK_WITHIN = 30.0
LONG_WORK_WITHIN = 90.0
READ_WITHIN = 10.0
"""Seconds a replica waits for what it reads: nothing is decided while the backlog hangs on a connection gone silent."""

ARRIVALS = ("arrivals", "more arrivals")
"""Two, so that one batch is worked on while the other is synced; a room's webhooks keep to one, and to their order."""

WRITERS = {
    **dict.fromkeys(ARRIVALS, 3.0),
    "decisions": 5.0,
    "rooms": 5.0,
    "lease": 3.0,
    "upkeep": 10.0,
    "replays": LONG_WORK_WITHIN,
}
"""The connections that write, each opened when it is needed, and the seconds after which it takes an answer for lost.

Upkeep comes in parts. While it hangs nothing that was pending is decided, nor what came after it: a connection that
fell silent must not hold it long.
"""

FOR_EACH = (*ARRIVALS, "decisions", "rooms", "lease")
"""The connections on which one piece must not wait long for a row, since others wait behind it."""

ROW_WITHIN = 0.25
"""Seconds for which a piece there, and those behind it, wait for a row; then it is set aside."""

POLL = 0.5
"""Seconds between looks for what other replicas have written, give or take a fifth."""

PATIENCE = 4.5
"""Seconds for which a delivery waits for a database that is away; then it is answered 503."""


def _of_arrival(piece: Owned) -> tuple[str, ...]:
    """Name what of an arrival must not be overtaken: in its room by nothing, if it changes the room's session."""
    arrival: Arrival = piece.what
    if arrival.room is None:
        return (arrival.id,)
    return (arrival.room, arrival.id) if arrival.change else (arrival.id, arrival.room)


def _of_decision(piece: Owned) -> tuple[str]:
    return (piece.what.id,)


def _of_first(piece: tuple[str, str]) -> tuple[str]:
    return (piece[0],)


def _of_key(piece: RoomRequest | rooms.Move) -> tuple[str]:
    return (piece.key,)


def _arrival_id(piece: Owned) -> str:
    return str(piece.what.id)


def _noted_id(piece: tuple[str, str]) -> str:
    return piece[0]


_ARRIVALS_LOCKED = partial(webhooks.locked, id_of=_arrival_id)
_NOTES_LOCKED = partial(webhooks.locked, id_of=_noted_id)

ADD = Verb(webhooks.add, 500, PATIENCE, _of_arrival, _ARRIVALS_LOCKED)
DECIDE = Verb(webhooks.decide, 500, KEPT, _of_decision, _ARRIVALS_LOCKED)
APPEND_ERROR = Verb(webhooks.append_error, 500, KEPT, _of_first, _NOTES_LOCKED)
BEGIN_ATTEMPT = Verb(webhooks.begin_attempt)
REQUEST = Verb(rooms.request, 1, PATIENCE, _of_key, rooms.locked)
STOP = Verb(rooms.stop, 1, PATIENCE, _of_first, rooms.locked)
MOVE = Verb(rooms.move, 1, KEPT, _of_key, rooms.locked)


class PostgresStore(Unspilled):
    """Remember webhooks, decisions and rooms in a PostgreSQL database that replicas on many machines may share.

    `lease_ttl` is for how many seconds this replica is taken for alive after each renewal, by the database's clock.
    `services` are what the environment says of PostgreSQL's services. Raises ConfigError where the URL cannot be read.
    """

    def __init__(self, url: str, lease_ttl: float = 30.0, services: Services = NO_SERVICES) -> None:
        self._address = address_of(url, services)
        self.replica = uuid4().hex
        self.lease = Lease(lease_ttl)
        self._writing: _OpenPostgres | None = None
        self._reading: PostgresWriter | None = None
        self._unanswered: tuple[str, ...] = ()
        self._cursor = SettledCursor()
        self._keys: dict[int, str] = {}
        self._unsafe = ""

    @property
    def location(self) -> str:
        return self._address.location

    @property
    def life(self) -> None:
        return None

    async def open(self, changed: Callable[[], None]) -> None:
        sent = boot_time()
        for warning in await self._once(self._enter, LONG_WORK_WITHIN):
            logger.warning("%s", warning)
        self._reading = PostgresWriter(ManagedConnection(self._address, READ_WITHIN, serving=True))
        self._writing = _OpenPostgres(self._address, changed)
        self.lease.begin(sent)

    async def open_readonly(self) -> None:
        schema = await self._once(partial(migrations.check_admitted, location=self.location), LOOK_WITHIN)
        if schema == 0:
            raise StoreError(f"there is no store at {self.location}: start the trigger once, or name another")
        if schema < migrations.SCHEMA:
            raise StoreError(
                f"the store {self.location} is at schema {schema}, this program reads {migrations.SCHEMA}: "
                "run `whereby-trigger db migrate`, or start the trigger once"
            )
        self._reading = PostgresWriter(ManagedConnection(self._address, LOOK_WITHIN))

    async def migrate(self) -> list[int]:
        return await self._once(self._migrate, LONG_WORK_WITHIN)

    async def look(self) -> list[Remark]:
        """Look at the database from all sides, and try to write, without leaving anything there.

        Raises StoreError where it cannot be reached, or refuses us.
        """
        return await self._once(self._look, LOOK_WITHIN)

    async def close(self) -> None:
        writing, self._writing = self._writing, None
        reading, self._reading = self._reading, None
        if writing is not None:
            await writing.close(partial(lease.leave, id=self.replica))
        if reading is not None:
            await reading.close(0)

    def add(self, arrival: Arrival) -> Awaitable[Added]:
        writer = ARRIVALS[hash(arrival.room or arrival.id) % len(ARRIVALS)]
        return self._write(writer, ADD, Owned(arrival, self.replica))

    def decide(self, decision: Decision) -> Awaitable[bool]:
        return self._write("decisions", DECIDE, Owned(decision, self.replica))

    def begin_attempt(self, seq: int) -> Awaitable[int]:
        return self._write("decisions", BEGIN_ATTEMPT, Owned(seq, self.replica))

    def append_error(self, id: str, error: str) -> None:
        self._write("decisions", APPEND_ERROR, (id, error)).add_done_callback(ignore_result)

    async def take_over(self, max_age: float = math.inf) -> int:
        total = 0
        searched: set[str] = set()
        while total < CLAIMED_AT_ONCE:
            claim = partial(
                lease.take_over, replica=self.replica, max_age=max_age, look_in=self._look_in, searched=searched
            )
            claimed = await self._call("upkeep", claim)
            if claimed is None:
                break
            total += claimed
        return total

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        return self._read(partial(webhooks.pending, owner=self.replica, after=after, limit=limit))

    def find(self, query: Query) -> Awaitable[list[Record]]:
        return self._read(partial(webhooks.find, query=query))

    def replay(self, query: Query, now: float) -> Awaitable[list[str]]:
        return self._call("replays", partial(webhooks.replay, query=query, now=now))

    async def prune(self, before: float) -> int:
        forgotten = await self._prune_each(partial(webhooks.prune, now=time.time()), before)
        await self._prune_each(rooms.forget, before)
        return forgotten

    async def _prune_each(self, prune: Callable[..., Any], before: float) -> int:
        total, forgotten = 0, PRUNE_ROWS
        while forgotten == PRUNE_ROWS:
            forgotten = await self._call("upkeep", partial(prune, before=before, limit=PRUNE_ROWS))
            total += forgotten
        return total

    async def ping(self, now: float) -> None:
        if self._unsafe:
            raise StoreError(self._unsafe)
        await self._call("lease", partial(lease.ping, id=self.replica))

    def renew(self, ttl: float) -> Awaitable[bool]:
        return self._call("lease", partial(self._renew, ttl=ttl))

    async def rejoin(self, ttl: float) -> None:
        new = uuid4().hex
        await self._call("lease", partial(lease.rejoin, old=self.replica, new=new, ttl=ttl))
        self.replica = new

    def request(self, request: RoomRequest) -> Awaitable[RoomClaim]:
        return self._write("rooms", REQUEST, request)

    async def take(self, slots: int, max_age: float = math.inf) -> list[Room]:
        tickets, self._unanswered = (*self._unanswered, uuid4().hex), ()
        try:
            take = partial(rooms.take, owner=self.replica, slots=slots, tickets=tickets, max_age=max_age)
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

    def stopping(self) -> Awaitable[list[Room]]:
        return self._read(partial(rooms.stopping, owner=self.replica))

    def rooms(self, *, limit: int | None = None, below: int = NEWEST) -> Awaitable[list[Room]]:
        return self._read(partial(rooms.read, limit=limit, below=below))

    def webhooks_after(self, after: int, keys: frozenset[str]) -> Awaitable[WebhooksAfter]:
        return self._read(partial(self._cursor.webhooks_after, after=after, keys=keys))

    def _look_in(self, seconds: float) -> None:
        if self._writing is not None:
            self._writing.look_in(seconds)

    def _write(self, writer: str, verb: Verb, piece: Any) -> "asyncio.Future[Any]":
        if self._writing is None:
            return refused("the store is not open for writing: start the trigger first")
        return self._writing.writers[writer].submit(verb, piece)

    def _call(self, writer: str, work: Work) -> "asyncio.Future[Any]":
        return self._write(writer, CALL, work)

    async def _read(self, work: Work) -> Any:
        if self._reading is None:
            raise StoreUnavailable("the store is not open: start the trigger first")
        return await self._reading.submit(CALL, work)

    async def _enter(self, connection: Connection) -> list[str]:
        warnings = await checks.check(connection, self.location)
        if await migrations.migrate(connection, self.location):
            await checks.check(connection, self.location)
        await lease.join(connection, self.replica, self.lease.ttl)
        return warnings

    async def _renew(self, connection: Connection, ttl: float) -> bool:
        renewed = await lease.renew(connection, self.replica, ttl)
        # What a start refuses, a reload of the server's settings can bring later.
        unsafe = await checks.why_unsafe(connection, self.location)
        if unsafe != self._unsafe:
            logger.log(logging.ERROR if unsafe else logging.INFO, "%s", unsafe or f"{self.location} is durable again")
        self._unsafe = unsafe
        return renewed

    async def _migrate(self, connection: Connection) -> list[int]:
        await checks.check(connection, self.location)
        return await migrations.migrate(connection, self.location)

    async def _look(self, connection: Connection) -> list[Remark]:
        remarks = await checks.look(connection, self.location)
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
        schema = await migrations.check_admitted(connection, self.location)
        if 0 < schema < migrations.SCHEMA:
            return f"{schema}, which the next start brings to {migrations.SCHEMA}"
        async with rolled_back(connection):
            await migrations.migrate(connection, self.location)
            await lease.join(connection, self.replica, self.lease.ttl)
        return f"{schema}, and takes writes" if schema else "none yet, and the first start may make it"

    async def _once(self, work: Callable[[Connection], Awaitable[T]], within: float) -> T:
        """Do work over a connection of its own; raises StoreError that says why the database cannot be used."""
        managed = ManagedConnection(self._address, within)
        try:
            return await managed.run(work)
        except Exception as error:
            raise unusable(self.location, error) from error
        finally:
            await managed.close()


class _OpenPostgres:
    """Hold what writing takes: a lane for each kind of work that must not wait for another, and the poll."""

    def __init__(self, address: DatabaseAddress, changed: Callable[[], None]) -> None:
        self._address = address
        self._changed = changed
        self._sooner: asyncio.TimerHandle | None = None
        self.writers = {name: PostgresWriter(_link(address, name, within)) for name, within in WRITERS.items()}
        self._polling = asyncio.create_task(_poll(changed), name="whereby-trigger poll")

    def look_in(self, seconds: float) -> None:
        """Look in so many seconds, where the poll comes later: a room whose replica died waits for its lease's end."""
        if self._sooner is not None:
            self._sooner.cancel()
        self._sooner = asyncio.get_running_loop().call_later(seconds, self._changed) if seconds < POLL else None

    async def close(self, leave: Work) -> None:
        """Finish what was handed over, and then leave."""
        self._polling.cancel()
        if self._sooner is not None:
            self._sooner.cancel()
        await asyncio.wait({self._polling})
        end = asyncio.get_running_loop().time() + CLOSE_TIMEOUT
        written = CLOSE_TIMEOUT * 3 / 4
        await asyncio.gather(*(writer.close(written) for name, writer in self.writers.items() if name != "lease"))
        self.writers["lease"].submit(CALL, leave).add_done_callback(ignore_result)
        await self.writers["lease"].close(max(CLOSE_TIMEOUT / 4, end - asyncio.get_running_loop().time()))


def _link(address: DatabaseAddress, name: str, within: float) -> ManagedConnection:
    return ManagedConnection(address, within, lock_within=ROW_WITHIN if name in FOR_EACH else LOCK_WITHIN, serving=True)


async def _call(connection: Connection, pieces: Sequence[Work], *, again: bool) -> list[Any]:
    return [await piece(connection) for piece in pieces]


CALL = Verb(_call)


async def _poll(changed: Callable[[], None]) -> None:
    # No notification: a pooler of transactions would lose them. Each at its own time, so that not all look at once.
    while True:
        await asyncio.sleep(POLL * random.uniform(0.8, 1.2))  # noqa: S311
        changed()
