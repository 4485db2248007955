"""Call user code: sync code in a thread, async code on the loop; its exceptions are results and never propagate."""

import asyncio
import copy
import inspect
import sys
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from msgspec import Struct

from whereby_trigger.callables import UserFunction, name_of, place_of
from whereby_trigger.loggers import own_logger
from whereby_trigger.threads import call_in, keep_running, shortage_of

logger = own_logger("whereby_trigger.decide")

T = TypeVar("T")

ENDS_WITHIN: Final = 0.5
"""Seconds that a thread without a call has to end: it only needs its turn."""

MAX_HUNG: Final = 16
"""Threads that may be given up to calls that hang; above that, further calls wait until one returns."""

RETRY: Final = 0.5
"""Seconds between attempts to start a thread while calls wait for one."""


class CallResult(Struct, frozen=True):
    """Hold the value that a call of user code returned, or the error that it raised."""

    value: Any = None
    error: BaseException | None = None


class TookTooLong(Exception):
    """Report that a call of user code passed its time limit."""


class LeftBehind(TookTooLong):
    """Report that a call of sync user code passed its time limit: it keeps its thread, and a new thread takes over."""


class Call(Struct, eq=False):
    """Hold one call for the thread: when it was `started`, in seconds of the loop's clock, and if it has `returned`."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: "asyncio.Future[CallResult]"
    started: float = 0.0
    returned: bool = False


class UserThread:
    """Run calls one after the other in a thread; calls and results travel between loop and thread in batches.

    Calls wait while no thread can be started, and while MAX_HUNG threads belong to calls that hang.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._queue = _Queue()
        self._worker: _Worker | None = None
        self._hung: list[_Worker] = []
        self._why = ""
        self._check: asyncio.TimerHandle | None = None

    def run(self, function: Callable[..., Any], *arguments: Any, next: bool = False) -> "asyncio.Future[CallResult]":
        """Call a function in the thread; return a future of its value, or of any exception, including SystemExit.

        A call over the limit results in LeftBehind, and the calls behind it continue in a new thread. With `next`, it
        goes ahead of all waiting calls.
        """
        loop = asyncio.get_running_loop()
        call = Call(function, arguments, loop.create_future())
        with self._queue.turn:
            (self._queue.calls.appendleft if next else self._queue.calls.append)(call)
        if self._worker is not None:
            self._worker.wake()
        elif not self._why:
            self._start(loop)
        if self._check is None:
            self._check = loop.call_later(self._limit if self._worker is not None else RETRY, self._look, loop)
        return call.future

    def run_next(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[CallResult]":
        """Do the same as `run`, ahead of all waiting calls."""
        return self.run(function, *arguments, next=True)

    @property
    def short(self) -> str:
        """Why calls wait, or would wait; "" if there is a thread for them."""
        if self._worker is not None or not (self._queue.calls or self._is_full()):
            return ""
        return self._why

    def close(self) -> None:
        """Cancel the calls that have not begun; the thread ends after the one that runs, or has ended if none does."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        for call in self._queue.clear():
            call.future.cancel()
        if self._worker is not None:
            self._worker.leave()
            self._worker.join_idle()
            self._worker = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._check = None
        worker, now = self._worker, loop.time()
        call = None if worker is None else worker.current
        # `leave` fails if the thread has gone on to another call by now: the next look judges that one.
        if worker is not None and call is not None and now >= call.started + self._limit and worker.leave(call):
            self._leave(worker, call)
        if self._worker is None and self._queue.calls:
            self._start(loop)
        if self._worker is None:
            self._check = loop.call_later(RETRY, self._look, loop) if self._queue.calls else None
        elif self._worker.busy:
            call = self._worker.current
            due = (now if call is None else call.started) + self._limit
            self._check = loop.call_later(max(0.001, due - now), self._look, loop)

    def _leave(self, worker: "_Worker", call: Call) -> None:
        self._worker = None
        self._hung = [each for each in self._hung if each.runs]
        self._hung.append(worker)
        logger.warning(
            "%s has run for longer than %g s and cannot be stopped: it keeps its thread (%d of at most %d)",
            _described(call.function),
            self._limit,
            len(self._hung),
            MAX_HUNG,
        )
        if self._is_full():
            self._wait(f"{MAX_HUNG} calls hang: {self._hanging()}")
        if not call.future.done():
            call.future.set_result(CallResult(error=LeftBehind(f"took longer than {self._limit:g} s")))

    def _is_full(self) -> bool:
        return sum(each.runs for each in self._hung) >= MAX_HUNG

    def _hanging(self) -> str:
        counts = Counter(_described(call.function) for each in self._hung if (call := each.current) is not None)
        return ", ".join(f"{name} ({count} times)" for name, count in sorted(counts.items()))

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_full():
            return
        try:
            self._worker = _Worker(loop, self._queue)
        except (RuntimeError, MemoryError) as error:
            if (short := shortage_of(error)) is None:
                raise
            self._wait(f"out of {short}")
            return
        if self._why:
            self._why = ""
            logger.warning("sync predicates and listeners run again")

    def _wait(self, why: str) -> None:
        if why != self._why:
            self._why = why
            logger.error("sync predicates and listeners wait, and decisions with them: %s", why)


class _Queue:
    """Hold the waiting calls: the loop puts them in, the thread takes them out."""

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        self.turn = threading.Lock()

    def clear(self) -> list[Call]:
        with self.turn:
            calls = list(self.calls)
            self.calls.clear()
        return calls


class _Worker:
    """Run the calls of a queue in a new thread until `leave`; raises RuntimeError if the thread cannot start."""

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: _Queue) -> None:
        self.loop = loop
        self.current: Call | None = None
        self._queue = queue
        self._left = False
        self._wake = threading.Event()
        self._done: deque[tuple[Call, CallResult]] = deque()
        self._announced = False
        self._thread = threading.Thread(target=self._run, name="whereby-trigger-user-code", daemon=True)
        self._thread.start()

    @property
    def runs(self) -> bool:
        """True while its thread is alive."""
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """True while a call runs or waits."""
        with self._queue.turn:
            return self.current is not None or bool(self._queue.calls)

    def wake(self) -> None:
        """Wake the thread: there are calls."""
        if not self._wake.is_set():
            self._wake.set()

    def leave(self, call: Call | None = None) -> bool:
        """End the thread after the call that it runs.

        With `call`, return False and change nothing if the thread already runs another: that one must stay watched.
        """
        with self._queue.turn:
            if call is not None and self.current is not call:
                return False
            self._left = True
        self._wake.set()
        return True

    def join_idle(self) -> None:
        """Wait for the thread's end after `leave`, unless user code runs in it."""
        if (call := self.current) is None or call.returned:
            self._thread.join(ENDS_WITHIN)

    def _run(self) -> None:
        keep_running(self._call_all)

    def _call_all(self) -> bool:
        while not self._left:
            while (call := self._next()) is not None:
                self._call(call)
            self._wake.wait()
            self._wake.clear()
        return False

    def _next(self) -> Call | None:
        calls = self._queue.calls
        with self._queue.turn:
            if self._left:
                return None
            while calls and calls[0].future.cancelled():
                calls.popleft()
            self.current = calls.popleft() if calls else None
            if self.current is not None:
                self.current.started = self.loop.time()
            return self.current

    def _call(self, call: Call) -> None:
        try:
            outcome = CallResult(call.function(*call.arguments))
        except BaseException as error:
            outcome = CallResult(error=error)
        call.returned = True
        self._done.append((call, outcome))
        if not self._announced:
            self._announced = True
            call_in(self.loop, self._settle)

    def _settle(self) -> None:
        self._announced = False
        while self._done:
            call, outcome = self._done.popleft()
            if not call.future.done():
                call.future.set_result(outcome)


def _described(function: Callable[..., Any]) -> str:
    name, place = name_of(function), place_of(function)
    return name if place in name else f"{name} at {place}"


WIND_DOWN = 1.0
"""Seconds to wait for async code after its cancellation, which it may ignore."""

Arguments = tuple[Any, ...]


class UserCode:
    """Call user code in one running loop. `limit` bounds a predicate and any sync call, in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = UserThread(limit)
        self._run_sync: Callable[..., asyncio.Future[CallResult]] = self._thread.run
        self._tasks: set[asyncio.Task[Any]] = set()

    def ahead(self) -> "UserCode":
        """Return a view of this user code whose sync calls go ahead of all that wait for the thread."""
        twin = copy.copy(self)
        twin._run_sync = self._thread.run_next
        return twin

    async def ask(self, function: UserFunction, arguments: Arguments, is_async: bool) -> CallResult:
        """Call a function within the time limit, and await its result if it is awaitable."""
        if not is_async:
            outcome = await self._run_sync(function, *arguments)
            if not _is_awaitable(outcome.value):
                return outcome
            function, arguments = _itself, (outcome.value,)
        task = self._begin(_result_of(function, arguments))
        try:
            await self._first_step(task)
            if task.done() or await _ended(task, self._limit):
                # Code that cancels its own task and then returns has no result.
                return CallResult(error=asyncio.CancelledError()) if task.cancelled() else task.result()
            task.cancel()
            await _ended(task, WIND_DOWN)
            return CallResult(error=TookTooLong(f"took longer than {self._limit:g} s"))
        finally:
            task.cancel()

    async def tell(
        self,
        function: UserFunction,
        arguments: Arguments,
        is_async: bool,
        failed: Callable[[BaseException], None],
    ) -> None:
        """Call a listener: wait for a sync one to end; start an async one as a task, without a time limit.

        `failed` is called with what it raises, for an async one possibly later. An async one has taken its first step
        when this returns.
        """
        if not is_async:
            outcome = await self._run_sync(function, *arguments)
            if outcome.error is not None:
                failed(outcome.error)
            if not _is_awaitable(outcome.value):
                return
            function, arguments = _itself, (outcome.value,)
        # A decision may record the listener as called only after its first step.
        await self._first_step(self._begin(_told(function, arguments, failed)))

    @property
    def runs_here(self) -> bool:
        """True if this is open and belongs to the running loop."""
        return not self._closed and asyncio.get_running_loop() is self._loop

    @property
    def idle(self) -> bool:
        """True while no async code runs."""
        return not self._tasks

    @property
    def short(self) -> str:
        """Why sync calls wait; "" if they do not."""
        return self._thread.short

    async def drain(self, timeout: float) -> None:
        """Wait for running async code, and cancel what still runs after `timeout` seconds."""
        if self.idle:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=WIND_DOWN)

    def close(self) -> None:
        """End the thread, without waiting for a call that hangs in it."""
        self._closed = True
        self._thread.close()

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Make a task, and run its first step at once if Python can do that."""
        if sys.version_info >= (3, 12):
            return asyncio.Task(coroutine, loop=self._loop, eager_start=True)
        return self._loop.create_task(coroutine)

    async def _first_step(self, task: asyncio.Task[Any]) -> None:
        """Wait for the first step of a task, with which most user code ends; otherwise keep the task until it ends."""
        try:
            if sys.version_info < (3, 12):
                await asyncio.sleep(0)
        finally:
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


async def _ended(task: asyncio.Task[Any], within: float) -> bool:
    await asyncio.wait((task,), timeout=within)
    return task.done()


async def _told(function: UserFunction, arguments: Arguments, failed: Callable[[BaseException], None]) -> None:
    outcome = await _result_of(function, arguments)
    if outcome.error is not None:
        failed(outcome.error)


async def _result_of(function: UserFunction, arguments: Arguments) -> CallResult:
    # A SystemExit that leaves a task would end the loop, and with it the process.
    try:
        return CallResult(await function(*arguments))
    except BaseException as error:
        return CallResult(error=error)


def _itself(awaitable: Awaitable[Any]) -> Awaitable[Any]:
    return awaitable


def _is_awaitable(value: object) -> bool:
    # A proxy object may raise on any attribute access.
    try:
        return inspect.isawaitable(value)
    except Exception:
        return False
