"""A lane to the database: pieces of work in order over one connection, those of a kind that wait together at once."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.postgres.failure import in_words, is_outage
from whereby_trigger.store.postgres.link import Connection, Link

RETRY = 0.25
"""Seconds after which work that waits for the database is tried again."""


class Work(Protocol):
    """Do pieces of work of one kind on a connection, and give their outcomes in the same order."""

    def __call__(self, connection: Connection, pieces: Sequence[Any], *, again: bool) -> Awaitable[Sequence[Any]]: ...


class Verb(Struct, frozen=True, eq=False):
    """Say how a kind of work is done: at most `limit` pieces at once, tried for `patience` seconds in an outage.

    The work is given the connection, the `pieces`, and whether it is done `again`: then an earlier try may have been
    committed, though its answer was lost.
    """

    work: Work
    limit: int = 1
    patience: float = 0.0


KEPT = math.inf
"""The patience of work that is never given up."""


class Job(Struct, eq=False):
    """Carry one piece of work, and its outcome back."""

    verb: Verb
    piece: Any
    future: "asyncio.Future[Any]"
    begun: float
    again: bool = False
    alone: bool = False

    def goes_with(self, other: "Job") -> bool:
        return self.verb is other.verb and self.again is other.again and not (self.alone or self.future.cancelled())

    @property
    def waits(self) -> bool:
        return time.monotonic() - self.begun < self.verb.patience


class Lane:
    """Do pieces of work in the order in which they come, each run of one verb's pieces in one go."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._jobs: deque[Job] = deque()
        self._woken = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._runner = asyncio.create_task(self._run(), name="whereby-trigger store")

    def submit(self, verb: Verb, piece: Any) -> "asyncio.Future[Any]":
        """Hand a piece over; its future has the outcome once it is committed.

        StoreUnavailable is its outcome where the database is away, StoreError where it refuses the values.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnavailable("the store is closed"))
        else:
            self._jobs.append(Job(verb, piece, future, time.monotonic()))
            self._woken.set()
        return future

    async def close(self, timeout: float) -> None:
        """Do what was handed over, for at most `timeout` seconds, and let go of the connection."""
        self._closing = True
        self._woken.set()
        await asyncio.wait({self._runner}, timeout=timeout)
        self._runner.cancel()
        await asyncio.wait({self._runner})
        for job in self._jobs:
            _fail(job, StoreUnavailable("the store was closed"))
        await self._link.close()

    async def _run(self) -> None:
        while self._jobs or not self._closing:
            if self._jobs and self._jobs[0].future.cancelled():
                self._jobs.popleft()
            elif self._jobs:
                await self._perform(self._next())
            else:
                self._woken.clear()
                await self._woken.wait()

    def _next(self) -> list[Job]:
        first = self._jobs.popleft()
        batch = [first]
        while not first.alone and self._jobs and self._jobs[0].goes_with(first) and len(batch) < first.verb.limit:
            batch.append(self._jobs.popleft())
        return batch

    async def _perform(self, batch: list[Job]) -> None:
        verb, again = batch[0].verb, batch[0].again
        try:
            outcomes = await self._link.run(partial(verb.work, pieces=[job.piece for job in batch], again=again))
        except asyncio.CancelledError:
            self._jobs.extendleft(reversed(batch))
            raise
        except Exception as error:
            await self._failed(batch, error)
        else:
            for job, outcome in zip(batch, outcomes, strict=True):
                if not job.future.done():
                    job.future.set_result(outcome)

    async def _failed(self, batch: list[Job], error: Exception) -> None:
        if is_outage(error):
            for job in batch:
                job.again = True
            self._jobs.extendleft(reversed(batch))
            await self._sit_out(in_words(error))
        elif len(batch) > 1:
            for job in batch:
                job.alone = True
            self._jobs.extendleft(reversed(batch))
        else:
            _fail(batch[0], in_words(error))

    async def _sit_out(self, outage: StoreError) -> None:
        waiting = [job for job in self._jobs if job.waits]
        for job in self._jobs:
            if not job.waits:
                _fail(job, outage)
        self._jobs = deque(waiting)
        if waiting:
            await asyncio.sleep(RETRY)


def _fail(job: Job, error: StoreError) -> None:
    if not job.future.done():
        job.future.set_exception(error)
