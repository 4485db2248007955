"""The store on a SQLite file: one writer thread, one reading connection, and a lock that shows this replica alive."""

import asyncio
import math
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from whereby_trigger import leftovers
from whereby_trigger.clock import BootClock, Lease, boot_clock, boot_time
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.loggers import own_logger
from whereby_trigger.process import check_effect
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
from whereby_trigger.store.sqlite import history, lease, presence, privacy, rooms, webhooks
from whereby_trigger.store.sqlite.connection import connect, path_of, shortage_in_words
from whereby_trigger.store.sqlite.lock import LifeLock, life_of, remove_life_file
from whereby_trigger.store.sqlite.opening import leave_unused, migrate_file, open_readonly, open_to_write
from whereby_trigger.store.sqlite.writer import Writer, reads_explained
from whereby_trigger.store.states import RoomState
from whereby_trigger.store.stay import UNBOUNDED, Bounds
from whereby_trigger.threads import OwnThread, in_thread

CLOSE_TIMEOUT = 4.0
"""Seconds that closing waits for a file that others have locked, or a disk that hangs."""

READER_WITHIN = 1.0
"""Seconds that closing waits for a read in progress."""

logger = own_logger("whereby_trigger.store")

EMPTIED_WITHIN = 5.0
"""Seconds for which the journal is tried to be emptied while others read the file."""

PRUNE_ROWS = 500

BOUNDED_AT_ONCE = 500
"""Waiting rooms that are ended in one transaction."""


class SqliteStore(Unspilled):
    """Store webhooks, decisions and rooms in a SQLite file that several processes of one machine may share.

    `lease_ttl` is the number of seconds for which this replica counts as alive after each renewal, by `clock`. `wall`
    returns the time for new rows, in seconds since the epoch. Unless it is `synced`, a power cut may lose what a caller
    was told is stored: that is for tests. Raises ConfigError if the URL names no file.
    """

    def __init__(
        self,
        url: str,
        lease_ttl: float = 30.0,
        clock: BootClock = boot_clock,
        wall: Callable[[], float] = time.time,
        *,
        synced: bool = True,
    ) -> None:
        self._synced = synced
        self.path = path_of(url)
        self.replica = uuid4().hex
        self.lease = Lease(lease_ttl)
        self.errors = StoreErrors()
        self._clock = clock
        self._wall = wall
        self._joined_at = 0.0
        self._counts = presence.GatheredCounts()
        self._rejoined_at = -math.inf
        self._writing: OpenSqlite | None = None
        self._reader: _Reader | None = None

    @property
    def location(self) -> str:
        return str(self.path)

    @property
    def _moment(self) -> rooms.Moment:
        return rooms.Moment(self._wall(), *self._clock())

    @property
    def life(self) -> int | None:
        return None if self._writing is None else self._writing.life.descriptor

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        check_effect("opening a store to write")
        with ExitStack() as undo, shortage_in_words(self.path):
            # What reads from then on opens the file, too: no thread is started for that alone.
            reads = OwnThread("reader")
            undo.callback(reads.end)
            join = partial(self._join, logged=changed is not None)
            entered = await reads.open(leave_unused, open_to_write, self.path, self.replica, join, self._synced)
            undo.callback(leave_unused, entered)
            database, reading, turn, life = entered
            reader = _Reader(reading, self.path, self.errors, reads)
            writer = Writer(database, turn, changed or unheard, self.errors, summary=self._counts)
            self._writing = OpenSqlite(writer, life)
            self._reader = reader
            database.readers_out = reader.out
            undo.pop_all()
        self.lease.begin(self._joined_at)

    def _join(self, connection: sqlite3.Connection, *, logged: bool) -> None:
        """Register this replica in the file. It is migrated then, which may take longer than a lease."""
        self._joined_at, now = boot_time(), self._wall()
        lease.join(connection, self.replica, os.getpid(), now, self.lease.ttl, self._clock, logged=logged)

    async def open_readonly(self) -> None:
        with ExitStack() as undo, shortage_in_words(self.path):
            reads = OwnThread("reader")
            undo.callback(reads.end)
            connection = await reads.open(sqlite3.Connection.close, open_readonly, self.path)
            self._reader = _Reader(connection, self.path, self.errors, reads)
            undo.pop_all()

    async def migrate(self) -> list[int]:
        with shortage_in_words(self.path):
            return await in_thread(migrate_file, self.path)

    async def close(self) -> None:
        writing, self._writing = self._writing, None
        reader, self._reader = self._reader, None
        if writing is not None:
            leaving = writing.writer.submit(partial(lease.leave, id=self.replica, now=self._wall()))
            leaving.add_done_callback(ignore_result)
        try:
            if reader is not None:
                # First: the last connection to close saves the journal, and only the writer's may wait for the disk.
                await reader.close()
        finally:
            # Even if that wait was cancelled.
            if writing is not None:
                await writing.writer.close(CLOSE_TIMEOUT)
                left = leaving.done() and leaving.exception() is None
                (writing.life.close if left else writing.life.die)()

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        # Of every delivery: a lambda takes half of what a partial with names does.
        replica, now, counts = self.replica, self._wall(), self._counts
        return self._write(lambda connection: webhooks.add(connection, arrival, replica, now, counts))

    def decide(self, decision: Decision) -> "asyncio.Future[bool]":
        replica = self.replica
        return self._write(lambda connection: webhooks.decide(connection, decision, replica), kept=True)

    def hold(self, holding: Holding) -> "asyncio.Future[bool]":
        hold = partial(webhooks.hold, holding=holding, owner=self.replica, now=self._wall())
        return self._write(hold, kept=True)

    def ask_again(self, seqs: Sequence[int]) -> Awaitable[list[Pending]]:
        return self._write(partial(webhooks.ask_again, seqs=seqs, owner=self.replica, now=self._wall()))

    def begin_attempt(self, seq: int) -> Awaitable[int]:
        return self._write(partial(webhooks.begin_attempt, seq=seq, owner=self.replica))

    def append_error(self, id: str, error: str) -> None:
        self._write(partial(webhooks.append_error, id=id, error=error), kept=True).add_done_callback(ignore_result)

    def take_over(self, max_age: float = math.inf) -> Awaitable[int]:
        return self._take_over(max_age)

    async def _take_over(self, max_age: float) -> int:
        replica, clock, before_us = self.replica, self._clock, set[str]()

        def take(connection: sqlite3.Connection, now: float, dead: set[str], guarded: set[str]) -> int | None:
            if not lease.holds(connection, replica, clock):
                return None
            unowned = webhooks.take_unowned(connection, replica)
            return unowned + lease.take_over_dead(connection, replica, now, max_age, dead, guarded, before_us, clock)

        def look(connection: sqlite3.Connection, now: float) -> tuple[list[lease.Other], int | None]:
            # A replica that is alone needs one transaction for both.
            others = lease.others(connection, replica, now)
            return others, None if others else take(connection, now, set(), set())

        others: list[lease.Other]
        taken: int | None
        others, taken = await self._write(partial(look, now=self._wall()))
        dead: set[str] = set()
        if others:
            # Not in the writer's thread: deliveries must not wait while we look at the files of other replicas.
            over, dead, guarded, before_us = await self._read(lambda _: self._find_the_dead(others))
            # Assistants that lost their guards are ended first. If some do not end, only a lease that has run out
            # counts.
            if (over or dead) and not await leftovers.end(over | dead):
                guarded, dead = guarded | dead, set()
            dead = dead | over
            # By the time as it is now: what a replica did just before it died must not come after its end.
            taken = await self._write(partial(take, now=self._wall(), dead=dead, guarded=guarded))
        if taken is None:
            return 0
        # Only after the commit: a replica whose file is missing counts as alive until its lease ends.
        if dead:
            await self._read(lambda _: [remove_life_file(self.path, other) for other in dead])
        return taken

    def _find_the_dead(self, others: list[lease.Other]) -> lease.Dead:
        return lease.find_the_dead(others, self._clock, partial(life_of, self.path), self._rejoined_at)

    def pending(self, after: int, limit: int) -> Awaitable[list[Pending]]:
        return self._read(partial(webhooks.pending, owner=self.replica, after=after, limit=limit, now=self._wall()))

    def newest(self) -> Awaitable[int]:
        return self._read(webhooks.newest)

    def find(self, query: Query) -> Awaitable[list[Record]]:
        return self._read(partial(webhooks.find, query=query))

    def history(self, after: int, limit: int) -> Awaitable[list[PastWebhook]]:
        return self._read(partial(webhooks.history, after=after, limit=limit))

    def first_since(self, moment: float) -> Awaitable[int | None]:
        return self._read(partial(webhooks.first_since, moment=moment))

    def replay(self, query: Query, now: float) -> Awaitable[list[str]]:
        return self._write(partial(webhooks.replay, query=query, now=now))

    def replayable(self, query: Query) -> Awaitable[list[str]]:
        return self._read(partial(webhooks.replayable, query=query))

    def prunable(self, before: float) -> Awaitable[int]:
        return self._read(partial(webhooks.prunable, before=before, now=self._wall()))

    async def prune(self, before: float, pruned: Told = untold) -> int:
        of_webhooks = partial(webhooks.prune, now=self._wall())
        others = [
            history.forget_runs,
            rooms.forget,
            history.forget_refusals,
            lease.forget_replicas,
            history.forget_actions,
        ]
        # Mostly there is little of these: a page of each goes in one transaction, in this order, which saves waits for
        # the disk. Each page is whole alone, as on PostgreSQL: a room goes with its runs, and no other row needs one
        # of another table. So a kill between two transactions leaves nothing but old rows, for the next prune.
        total = 0
        left: list[Callable[..., int]] = [of_webhooks, *others]
        while left:
            forgotten = await asyncio.gather(
                *(self._write(partial(page, before=before, limit=PRUNE_ROWS)) for page in left)
            )
            if left[0] is of_webhooks:
                pruned(forgotten[0])
                total += forgotten[0]
            left = [page for page, rows in zip(left, forgotten, strict=True) if rows == PRUNE_ROWS]
        await self._prune_presence(before)
        return total

    async def _prune_presence(self, before: float) -> None:
        # Without an index on the time, which each delivery would have to update; a scan holds up no write.
        after = ""
        while old := await self._read(partial(presence.find_old, before=before, after=after, limit=PRUNE_ROWS)):
            await self._write(partial(presence.forget, keys=old, before=before, counts=self._counts))
            after = old[-1]

    def add_refusals(self, counts: Sequence[RefusalCount]) -> Awaitable[None]:
        return self._write(partial(history.add_refusals, counts=counts))

    def add_action(self, action: ActionRecord) -> Awaitable[None]:
        return self._write(partial(history.add_action, action=action))

    def find_actions(self, query: ActionQuery) -> Awaitable[list[ActionRecord]]:
        return self._read(partial(history.find_actions, query=query))

    def refusals(self, since: float, until: float) -> Awaitable[list[RefusalCount]]:
        return self._read(partial(history.read_refusals, since=since, until=until))

    def workload(self) -> Awaitable[Workload]:
        return self._read(partial(webhooks.workload, within=WORKLOAD_WITHIN))

    def records_after(self, after: int, limit: int) -> Awaitable[list[Record]]:
        return self._read(partial(privacy.records_after, after=after, limit=limit))

    def old_bodies(self, before: float, after: tuple[float, int], limit: int) -> Awaitable[list[OldBody]]:
        return self._read(partial(privacy.old_bodies, before=before, after=after, limit=limit))

    def rewrite(self, rewrites: Sequence[Rewrite], now: float, *, silence: bool = False) -> Awaitable[int]:
        return self._write(partial(privacy.rewrite, rewrites=rewrites, silence=silence, now=now))

    def drop(self, seqs: Sequence[int], room: str, now: float) -> Awaitable[int]:
        return self._write(partial(privacy.drop, seqs=seqs, room=room, now=now, counts=self._counts))

    async def wipe(self, *, rewrite: bool | None) -> str:
        size = self.path.stat().st_size
        small = size <= privacy.SMALL
        left = ""
        if rewrite or (rewrite is None and small):
            try:
                await self._run_alone(partial(privacy.write_again, in_memory=small))
            except StoreUnavailable as error:
                left = f"the file could not be written again: {error}"
        elif rewrite is None:
            left = (
                f"the file has {size // 2**20} MiB and was not written again, which holds up deliveries: its pages may "
                "hold copies of rows that were moved; run this again with --rewrite when that suits"
            )
        end = boot_time() + EMPTIED_WITHIN
        while not await self._run_alone(privacy.empty_journal):
            if boot_time() >= end:
                return left or (
                    f"the journal {self.path}-wal could not be emptied: a program reads the file and does not finish; "
                    "close what has it open (a database browser, a backup, a shell), and run this again"
                )
            await asyncio.sleep(0.1)
        return left

    def ping(self, now: float) -> Awaitable[None]:
        return self._write(lambda connection: connection.execute(webhooks.SEEN, (now, self.replica)).rowcount)

    def renew(self, ttl: float) -> Awaitable[bool]:
        if self._writing is not None:
            self._writing.check_life_file()
        return self._write(partial(lease.renew, id=self.replica, now=self._wall(), ttl=ttl, clock=self._clock))

    async def rejoin(self, ttl: float) -> None:
        if self._writing is None:
            return
        replica = uuid4().hex
        try:
            life = LifeLock(self.path, replica)
        except OSError as error:
            raise StoreUnavailable(f"the store takes no new replica now: {error.strerror}") from error
        self._writing.life.close()
        old, self.replica, self._writing.life = self.replica, replica, life
        self._rejoined_at = self._clock()[1]
        joining = partial(lease.join, id=replica, pid=os.getpid(), now=self._wall(), ttl=ttl, clock=self._clock)
        await self._write(partial(lease.rejoin, old=old, now=self._wall(), join=joining), kept=True)

    def request(self, request: RoomRequest) -> Awaitable[RoomClaim]:
        return self._write(partial(rooms.request, request=request, now=self._wall()))

    def take(self, slots: int, max_age: float = math.inf, bounds: Bounds = UNBOUNDED) -> Awaitable[list[Room]]:
        replica, moment, clock = self.replica, self._moment, self._clock

        def work(connection: sqlite3.Connection) -> list[Room]:
            held = lease.holds(connection, replica, clock)
            return rooms.take(connection, replica, slots, moment, max_age, bounds) if held else []

        return self._write(work)

    def move(self, move: RoomMove) -> Awaitable[bool]:
        return self._write(partial(rooms.move, move=move, owner=self.replica, now=self._wall()), kept=True)

    def stop(self, key: str, reason: str) -> Awaitable[RoomState | None]:
        return self._write(partial(rooms.stop, key=key, reason=reason, now=self._wall()))

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

    async def stopping(self, bounds: Bounds = UNBOUNDED) -> list[Room]:
        find = partial(rooms.stopping, owner=self.replica, moment=self._moment, bounds=bounds)
        found: list[Room] = await self._read(find)
        if await self._apply_bounds([room for room in found if room.stop is None], bounds):
            found = await self._read(find)
        return [room for room in found if room.stop is not None]

    async def end_waiting(self, bounds: Bounds) -> None:
        find = partial(rooms.waiting_at_bound, moment=self._moment, bounds=bounds, limit=BOUNDED_AT_ONCE)
        await self._apply_bounds(await self._read(find), bounds)

    async def _apply_bounds(self, found: list[Room], bounds: Bounds) -> bool:
        apply = partial(rooms.apply_bounds, rooms=found, owner=self.replica, moment=self._moment, bounds=bounds)
        if found:
            await self._write(apply)
        return bool(found)

    def webhooks_after(self, after: int, keys: frozenset[str]) -> Awaitable[WebhooksAfter]:
        return self._read(partial(rooms.webhooks_after, after=after, keys=keys))

    def presences(self, keys: frozenset[str]) -> Awaitable[dict[str, Presence]]:
        return self._read(partial(presence.find, keys=keys))

    def occupied(self, limit: int) -> Awaitable[dict[str, Presence]]:
        return self._read(partial(presence.occupied, limit=limit))

    def _write(self, work: Callable[[sqlite3.Connection], Any], *, kept: bool = False) -> "asyncio.Future[Any]":
        if self._writing is None:
            return refused("the store is not open for writing: start the trigger first")
        return self._writing.writer.submit(work, kept=kept)

    def _run_alone(self, work: Callable[[sqlite3.Connection], Any]) -> "asyncio.Future[Any]":
        if self._writing is None:
            return refused("the store is not open for writing: start the trigger first")
        return self._writing.writer.submit(work, alone=True)

    def _read(self, work: Callable[[sqlite3.Connection], Any]) -> Awaitable[Any]:
        if self._reader is None:
            return refused("the store is not open: start the trigger first")
        return self._reader.run(work)


class _Reader:
    """Read in a thread of its own: reads do not wait for writes."""

    def __init__(self, connection: sqlite3.Connection, path: Path, errors: StoreErrors, thread: OwnThread) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._path = path
        self._errors = errors
        self._using = threading.Lock()
        self._thread = thread

    async def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with reads_explained(self._errors):
            return await self._thread.run(self._read, work)

    async def close(self) -> None:
        # In its thread, so never during a read, and also if nobody waits for it any more.
        self._thread.run(self._close).add_done_callback(ignore_result)
        await self._thread.close(READER_WITHIN)

    def _close(self) -> None:
        with self.out():
            pass

    @contextmanager
    def out(self) -> Iterator[None]:
        """Close the connection once no read uses it; it is reopened only after the block. Any thread may call this."""
        with self._using:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            yield

    def _read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with self._using:
            if self._connection is None:
                self._connection = connect(self._path, readonly=True)
            return work(self._connection)


class OpenSqlite:
    """Hold what writing needs: the writer, and the lock that shows this replica alive."""

    def __init__(self, writer: Writer, life: LifeLock) -> None:
        self.writer, self.life = writer, life
        self._missed: LifeLock | None = None

    def check_life_file(self) -> None:
        """Warn once if the file that shows this replica alive was removed: others then go by its lease."""
        if self._missed is not self.life and not self.life.in_place:
            self._missed = self.life
            logger.warning(
                "%s was removed or replaced while it was in use: if this replica dies, its rooms wait until its lease "
                "has run out; restart it when you can, and do not touch the files beside the store",
                self.life.path,
            )
