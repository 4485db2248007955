"""The one thread that writes: what arrived during a commit goes into the next, and callers hear after the sync."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from msgspec import Struct

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.protocol import StoreErrors
from whereby_trigger.store.sqlite.journal import Database
from whereby_trigger.threads import call_in, keep_running

Work = Callable[[sqlite3.Connection], Any]

POLL = 0.1
"""Seconds between looks for what other processes have written."""

RETRY = 0.5
"""Seconds after which work that must not be given up is tried again."""

BATCH = 1000
"""Pieces of work after which a transaction takes in no more, so that none holds the file for long."""

REFUSALS = (
    *(sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError),
    *(ValueError, TypeError, LookupError, ArithmeticError),
)
"""What SQLite and Python raise about the values given. All else is an outage: no space, no memory, no more files."""


class BatchSummary(Protocol):
    """Gather something from the work of a transaction, and write it once, before the commit."""

    def begin(self) -> None:
        """Forget what was gathered before."""
        ...

    def write(self, connection: sqlite3.Connection) -> None: ...

    def committed(self) -> None:
        """Note that the transaction is committed, and in the file."""
        ...


class NoBatchSummary:
    """Gather nothing and write nothing."""

    def begin(self) -> None:
        pass

    def write(self, connection: sqlite3.Connection) -> None:
        pass

    def committed(self) -> None:
        pass


NO_SUMMARY: Final = NoBatchSummary()


class Job(Struct, frozen=True, eq=False):
    """Carry one piece of work to the thread and its outcome back; `kept` means: wait for a store that is away.

    One that is `alone` runs outside of a transaction, after the work of its batch.
    """

    work: Work
    future: "asyncio.Future[Any]"
    kept: bool
    alone: bool = False


class Writer:
    """Run pieces of work in one thread, many to a transaction, and settle their futures after the commit.

    `errors` counts the transactions that fail; `called` is what the file is to a person, in what the errors say.
    `summary` is written at the end of each transaction.
    """

    def __init__(
        self,
        database: Database,
        turn: Any,
        changed: Callable[[], None],
        errors: StoreErrors,
        called: str = "store",
        summary: BatchSummary = NO_SUMMARY,
    ) -> None:
        self._errors = errors
        self._called = called
        self._summary = summary
        self._database = database
        self._turn = turn
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        # What is handed over in one turn of the loop wakes the thread once.
        self._gathered: list[Job] = []
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._closed = False
        self._seen_version = self._data_version()
        self._next_look = 0.0
        self._unsettled = 0
        # What must be tried again.
        self._kept: list[Job] = []
        self._begin()

    @property
    def idle(self) -> bool:
        """True if nothing that was handed over is still to be committed."""
        return not self._unsettled

    def _begin(self) -> None:
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, name="whereby-trigger-store", daemon=True).start()

    def submit(self, work: Work, *, kept: bool = False, alone: bool = False) -> "asyncio.Future[Any]":
        """Hand a piece of work over; its future has the outcome once it is committed and synced.

        With `alone` it runs outside of a transaction.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreUnavailable(f"the {self._called} is closed"))
        else:
            if not self._gathered:
                self._loop.call_soon(self._hand_over)
            self._gathered.append(Job(work, future, kept, alone))
            self._unsettled += 1
        return future

    def end(self) -> None:
        """Take nothing more, commit what was handed over, and end the thread after that."""
        self._closed = True
        self._hand_over()
        self._jobs.put(None)

    async def close(self, timeout: float) -> None:
        """Do the same, and wait for it at most `timeout` seconds."""
        self.end()
        await asyncio.wait({self._ended}, timeout=timeout)

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), BATCH):
            self._jobs.put(gathered[start : start + BATCH])

    def _run(self) -> None:
        keep_running(self._do_next)
        self._give_up()
        self._database.close()
        self._turn.close()
        self._call_soon(_end, self._ended)

    def _do_next(self) -> bool:
        batch, closing = self._next_batch(RETRY if self._kept else POLL)
        self._do(batch)
        return not closing

    def _do(self, batch: list[Job]) -> None:
        """Run the jobs that must be tried again, then a batch, and settle them."""
        jobs = self._kept + batch
        try:
            self._kept = self._commit([job for job in jobs if not job.alone])
            for job in batch:
                if job.alone:
                    self._run_alone(job)
        except Exception as error:
            # Such as a lack of the memory to say why the work failed.
            self._kept = [job for job in jobs if job.kept]
            self._call_soon(self._refuse, [job for job in jobs if not job.kept], StoreUnavailable(describe(error)))

    def _give_up(self) -> None:
        kept, self._kept = self._kept, []
        self._call_soon(self._refuse, kept, StoreUnavailable(f"the {self._called} was closed"))

    def _next_batch(self, wait: float) -> tuple[list[Job], bool]:
        batch: list[Job] = []
        try:
            jobs = self._jobs.get(timeout=wait)
            while jobs is not None:
                batch += jobs
                if len(batch) >= BATCH:
                    return batch, False
                jobs = self._jobs.get_nowait()
        except queue.Empty:
            self._look_for_changes()
            return batch, False
        return batch, True

    def _commit(self, jobs: list[Job]) -> list[Job]:
        """Run jobs in one transaction and settle them; return those that must be tried again."""
        if not jobs:
            return []
        try:
            outcomes = self._transact(jobs)
        except Exception as error:
            if not is_refusal(error):
                refused = StoreUnavailable(f"the {self._called} takes no writes now: {describe(error)}")
                self._errors.note(refused)
                self._call_soon(self._refuse, [job for job in jobs if not job.kept], refused)
                return [job for job in jobs if job.kept]
            if len(jobs) > 1:
                return [job for one in jobs for job in self._commit([one])]
            wrong = StoreError(f"the {self._called} refused a value: {error}")
            self._errors.note(wrong)
            self._call_soon(self._refuse, jobs, wrong)
        else:
            self._call_soon(self._settle, jobs, outcomes)
        return []

    def _run_alone(self, job: Job) -> None:
        try:
            with self._turn:
                outcome = job.work(self._database.prepare())
        except Exception as error:
            refused = StoreUnavailable(f"the {self._called} cannot do this now: {describe(error)}")
            self._call_soon(self._refuse, [job], refused)
        else:
            self._call_soon(self._settle, [job], [outcome])

    def _transact(self, jobs: list[Job]) -> list[Any]:
        with self._turn:
            connection = self._database.prepare()
            changes = connection.total_changes
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._summary.begin()
                outcomes = [job.work(connection) for job in jobs]
                self._summary.write(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if connection.total_changes != changes:
                # Not before: a log that is removed during the commit takes it along.
                self._database.settle()
            self._summary.committed()
        return outcomes

    def _look_for_changes(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + POLL
        try:
            self._database.warn_if_large()
            if not self._database.is_intact():
                with self._turn:
                    self._database.prepare()
            version = self._data_version()
        except Exception:
            # Whatever it is: this thread is the only one that writes.
            return
        if version != self._seen_version:
            self._seen_version = version
            self._call_soon(self._changed)

    def _data_version(self) -> int:
        # SQLite counts here what other connections have committed; this connection's own commits do not show.
        (version,) = self._database.connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        call_in(self._loop, callback, *arguments)

    def _settle(self, jobs: list[Job], outcomes: list[Any]) -> None:
        self._unsettled -= len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if not job.future.done():
                job.future.set_result(outcome)

    def _refuse(self, jobs: list[Job], error: StoreError) -> None:
        self._unsettled -= len(jobs)
        for job in jobs:
            if not job.future.done():
                job.future.set_exception(error)


def is_refusal(error: BaseException) -> bool:
    """Return True if an error is about the values given, so that another try makes no sense."""
    if isinstance(error, StoreError):
        return not isinstance(error, StoreUnavailable)
    return isinstance(error, REFUSALS)


def describe(error: BaseException) -> str:
    """Return what went wrong; some errors, such as a MemoryError, have no text."""
    return str(error) or type(error).__name__


@contextmanager
def reads_explained(errors: StoreErrors) -> Iterator[None]:
    """Raise StoreError for what fails during a read, and note it."""
    try:
        yield
    except Exception as error:
        # The process may be out of files to open it, or of memory for the rows.
        failed = (
            StoreError(f"the store refused a value: {error}")
            if is_refusal(error)
            else StoreUnavailable(f"the store cannot be read now: {describe(error)}")
        )
        errors.note(failed)
        raise failed from error


def _end(ended: "asyncio.Future[None]") -> None:
    if not ended.done():
        ended.set_result(None)
