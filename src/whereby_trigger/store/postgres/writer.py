"""A lane to the database: pieces of work in order over one connection, those of a kind that wait together at once.

A piece whose row somebody else has locked is set aside, with what must not overtake it, and tried again now and then:
the others go on without it. The verbs say which pieces go together, which must not overtake which, and how long each
may take.
"""

import asyncio
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.loggers import own_logger
from whereby_trigger.store.postgres import rooms, webhooks
from whereby_trigger.store.postgres.connection import Connection, ManagedConnection, in_words, is_contention, is_refusal
from whereby_trigger.store.postgres.webhooks import Owned
from whereby_trigger.store.protocol import StoreErrors, Write
from whereby_trigger.store.records import Arrival, RoomRequest

logger = own_logger("whereby_trigger.store")

RETRY = 0.25
RETRY_AT_MOST = 0.5
ROW_AT_MOST = 1.0
"""Seconds after which work is tried again: at first, and in the end, where it waits for the database or for a row."""


class Work(Protocol):
    """Do pieces of work of one kind on a connection, and give their outcomes in the same order."""

    def __call__(self, connection: Connection, pieces: Sequence[Any], *, again: bool) -> Awaitable[Sequence[Any]]: ...


class Locked(Protocol):
    """Return for each piece whether its row is locked by another session; raises if a whole table is."""

    def __call__(self, connection: Connection, pieces: Sequence[Any]) -> Awaitable[Sequence[bool]]: ...


class Verb(Struct, frozen=True, eq=False):
    """Say how a kind of work is done: at most `limit` pieces at once, tried for `patience` seconds in an outage.

    The work is given the connection, the `pieces`, and whether it is done `again`: then an earlier try may have been
    committed, though its answer was lost.

    `keys` names what a piece is about, such as a room: while a piece is set aside, no other that has its first key
    overtakes it. `locked` finds the pieces to be set aside. A kind without these is given up when a row is locked.
    If there is a `row_key`, a piece whose own row exists and is locked changes nothing but this row: it is set aside by
    this key alone.
    """

    work: Work
    limit: int = 1
    patience: float = 0.0
    keys: Callable[[Any], tuple[Hashable, ...]] | None = None
    locked: Locked | None = None
    row_key: Callable[[Any], Hashable] | None = None


KEPT = math.inf
"""The patience of work that is never given up."""


class PostgresJob(Struct, eq=False):
    """Carry one piece of work, and its outcome back.

    `part` is shared by the jobs that are tried together after their batch failed, None before; `pause` is for how many
    seconds it was set aside last, and `row_locked` whether that was because its own row is locked.
    """

    verb: Verb
    piece: Any
    future: Write
    begun: float
    again: bool = False
    part: object | None = None
    pause: float = 0.0
    row_locked: bool = False

    def goes_with(self, other: "PostgresJob") -> bool:
        return self.verb is other.verb and self.again is other.again and self.part is other.part

    @property
    def waits(self) -> bool:
        return time.monotonic() - self.begun < self.verb.patience and not self.future.cancelled()

    @property
    def keys(self) -> tuple[Hashable, ...]:
        if self.row_locked and self.verb.row_key is not None:
            return (self.verb.row_key(self.piece),)
        return () if self.verb.keys is None else self.verb.keys(self.piece)


class Aside(Struct, eq=False):
    """Hold a job that waits for a row until it is `due`, and those `behind` it that must not overtake it."""

    job: PostgresJob
    due: float
    behind: deque[PostgresJob]


class PostgresWriter:
    """Do pieces of work in the order in which they come, each run of one verb's pieces in one go.

    `errors` counts the tries that fail.
    """

    def __init__(self, connection: ManagedConnection, errors: StoreErrors) -> None:
        self._connection = connection
        self._errors = errors
        self._jobs: deque[PostgresJob] = deque()
        self._aside: dict[Hashable, Aside] = {}
        self._pause = RETRY
        self._woken = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._runner = asyncio.create_task(self._run(), name="whereby-trigger store")

    def submit(self, verb: Verb, piece: Any) -> Write:
        """Hand a piece over; its future has the outcome once it is committed.

        StoreUnavailable is its outcome where the database is away, StoreBusy where somebody has locked its row,
        StoreError where its values are refused.
        """
        future = Write(loop=self._loop)
        if self._closing:
            future.set_exception(StoreUnavailable("the store is closed"))
        else:
            self._jobs.append(PostgresJob(verb, piece, future, time.monotonic()))
            self._woken.set()
        return future

    async def close(self, timeout: float) -> None:
        """Do what was handed over, for at most `timeout` seconds, and let go of the connection."""
        self._closing = True
        self._woken.set()
        try:
            await asyncio.wait({self._runner}, timeout=timeout)
        finally:
            # Even if that wait was cancelled.
            self._runner.cancel()
            await asyncio.wait({self._runner})
            held_up = itertools.chain.from_iterable((aside.job, *aside.behind) for aside in self._aside.values())
            _fail([*self._jobs, *held_up], StoreUnavailable("the store was closed"))
            await self._connection.close()

    async def _run(self) -> None:
        while self._jobs or self._aside or not self._closing:
            # One of these, and then one of the others: however many wait for rows, the others get their turn.
            if self._bring_back():
                await self._perform(self._next())
            if self._jobs:
                await self._perform(self._next())
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Wait until there is work, or the first job that was set aside is due."""
        self._woken.clear()
        due = min((aside.due for aside in self._aside.values()), default=math.inf)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due == math.inf else max(0.0, due - time.monotonic())):
                await self._woken.wait()

    def _next(self) -> list[PostgresJob]:
        """Take the jobs from the front that go together; those that must not overtake another are put behind it."""
        batch: list[PostgresJob] = []
        while self._jobs and (not batch or self._jobs[0].goes_with(batch[0])):
            if len(batch) == self._jobs[0].verb.limit:
                break
            job = self._jobs.popleft()
            if not job.future.cancelled() and not self._is_held_up(job):
                batch.append(job)
        return batch

    def _is_held_up(self, job: PostgresJob) -> bool:
        if not self._aside:
            return False
        for key in job.keys:
            if key in self._aside:
                job.future.held_up = True
                self._aside[key].behind.append(job)
                return True
        return False

    async def _perform(self, batch: list[PostgresJob]) -> None:
        if not batch:
            return
        first, pieces = batch[0], [job.piece for job in batch]
        work = partial(first.verb.work, pieces=pieces, again=first.again)
        try:
            outcomes = await self._connection.run(work, briefly=first.part is not None)
        except asyncio.CancelledError:
            self._jobs.extendleft(reversed(batch))
            raise
        except Exception as error:
            await self._failed(batch, error)
        else:
            self._pause = RETRY
            for job, outcome in zip(batch, outcomes, strict=True):
                if not job.future.done():
                    job.future.set_result(outcome)

    async def _failed(self, batch: list[PostgresJob], error: Exception) -> None:
        impatient = batch[0].verb.locked is None
        if len(batch) == 1 or not is_refusal(error):
            self._errors.note(in_words(error))
        if is_contention(error) and not impatient:
            await self._locked(batch, error)
        elif not is_refusal(error) and not is_contention(error):
            await self._sit_out(batch, error)
        elif len(batch) > 1:
            self._split(batch)
        else:
            _fail(batch, in_words(error))

    async def _sit_out(self, batch: list[PostgresJob], error: Exception) -> None:
        """Wait for a database that is away; what has no more patience fails."""
        if not is_contention(error):
            for job in batch:
                job.again = True
        self._jobs.extendleft(reversed(batch))
        waiting = [job for job in self._jobs if job.waits]
        _fail([job for job in self._jobs if not job.waits], in_words(error))
        self._jobs = deque(waiting)
        if waiting:
            # Not all at once, or those of many replicas would come together to a database that is just back.
            await asyncio.sleep(self._pause * random.uniform(0.8, 1.2))  # noqa: S311
            self._pause = min(2 * self._pause, RETRY_AT_MOST)

    async def _locked(self, batch: list[PostgresJob], error: Exception) -> None:
        """Set those aside whose rows are locked; if none is known to be, try each half without the other."""
        locked: Sequence[bool] = [False] * len(batch)
        if batch[0].part is None:
            find = partial(batch[0].verb.locked, pieces=[job.piece for job in batch])  # type: ignore[misc,arg-type]
            try:
                locked = await self._connection.run(find, briefly=True)
            except asyncio.CancelledError:
                self._jobs.extendleft(reversed(batch))
                raise
            except Exception as outage:
                await self._sit_out(batch, outage)
                return
        for job, is_locked in zip(batch, locked, strict=True):
            job.row_locked = job.row_locked or is_locked
        if len(batch) == 1:
            self._set_aside(batch[0], error)
        elif any(locked):
            free = [job for job, is_locked in zip(batch, locked, strict=True) if not is_locked]
            self._jobs.extendleft(reversed(free))
            for job in itertools.compress(batch, locked):
                self._set_aside(job, error)
        else:
            self._split(batch)

    def _split(self, batch: list[PostgresJob]) -> None:
        half = len(batch) // 2
        for jobs in (batch[half:], batch[:half]):
            part = object()
            for job in jobs:
                job.part = part
            self._jobs.extendleft(reversed(jobs))

    def _set_aside(self, job: PostgresJob, error: Exception) -> None:
        if not job.waits:
            _fail([job], in_words(error))
        elif not self._is_held_up(job):
            if not self._aside:
                logger.warning("a write waits for a row that another transaction has locked: see pg_stat_activity")
            job.part, job.future.held_up = object(), True
            job.pause = min(2 * job.pause or RETRY, ROW_AT_MOST)
            self._aside[job.keys[0]] = Aside(job, time.monotonic() + job.pause, deque())

    def _bring_back(self) -> bool:
        """Put the first job that is due before all others, and what is behind it after it; return True if one was."""
        now = time.monotonic()
        for key, aside in self._aside.items():
            if aside.due <= now:
                del self._aside[key]
                self._jobs.extendleft(reversed((aside.job, *aside.behind)))
                return True
        return False


async def close_all(writers: Iterable[PostgresWriter], timeout: float) -> None:
    """Close writers at the same time; if the caller is cancelled, it is so once they are closed."""
    closing = {asyncio.ensure_future(writer.close(timeout)) for writer in writers}
    try:
        await asyncio.wait(closing)
    finally:
        await asyncio.wait(closing)


def _fail(jobs: Iterable[PostgresJob], error: StoreError) -> None:
    for job in jobs:
        if not job.future.done():
            job.future.set_exception(error)


Call = Callable[[Connection], Awaitable[Any]]

LONG_WORK_WITHIN = 90.0
ARRIVALS = ("arrivals", "more arrivals")
"""Two writers: one executes a batch while the other syncs. A room's webhooks use only one, and stay in order."""

WRITERS = {
    **dict.fromkeys(ARRIVALS, 3.0),
    "decisions": 5.0,
    "rooms": 5.0,
    "lease": 3.0,
    "upkeep": 10.0,
    "replays": LONG_WORK_WITHIN,
}
"""The writers by name, each with a connection opened when needed, and the seconds after which an answer counts as lost.

Upkeep is done in parts. While it hangs, webhooks that were pending and those after them are not decided: a silent
connection must not block it for long.
"""

FOR_EACH = (*ARRIVALS, "decisions", "rooms", "lease")
"""The writers in which one piece must not wait long for a row, since other pieces wait behind it."""

ROW_WITHIN = 0.25
"""Seconds that a piece in such a writer waits for a row before it is set aside."""

PATIENCE = 4.5
"""Seconds that a delivery waits for an unavailable database before it is answered 503."""


def _of_arrival(piece: Owned) -> tuple[str, ...]:
    """Return the keys of an arrival; the first is its room, and nothing overtakes it there, if it changes a session."""
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


def _error_id(piece: tuple[str, str]) -> str:
    return piece[0]


async def _call(connection: Connection, pieces: Sequence[Call], *, again: bool) -> list[Any]:
    return [await piece(connection) for piece in pieces]


_ARRIVALS_LOCKED = partial(webhooks.locked, id_of=_arrival_id)
_ERRORS_LOCKED = partial(webhooks.locked, id_of=_error_id)

CALL = Verb(_call)
# A webhook whose row is there already is a duplicate: it changes no session, and nothing in its room waits for it.
ADD = Verb(webhooks.add, 500, PATIENCE, _of_arrival, _ARRIVALS_LOCKED, _arrival_id)
DECIDE = Verb(webhooks.decide, 500, KEPT, _of_decision, _ARRIVALS_LOCKED)
HOLD = Verb(webhooks.hold, 500, KEPT, _of_decision, _ARRIVALS_LOCKED)
APPEND_ERROR = Verb(webhooks.append_error, 500, KEPT, _of_first, _ERRORS_LOCKED)
BEGIN_ATTEMPT = Verb(webhooks.begin_attempt)
REQUEST_UNCHANGED = Verb(rooms.request_unchanged, 500, PATIENCE, _of_key, rooms.locked)
REQUEST = Verb(rooms.request, 1, PATIENCE, _of_key, rooms.locked)
STOP = Verb(rooms.stop, 1, PATIENCE, _of_first, rooms.locked)
MOVE = Verb(rooms.move, 1, KEPT, _of_key, rooms.locked)
