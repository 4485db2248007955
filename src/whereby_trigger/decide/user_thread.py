"""The one thread in which sync user code runs, in order, so that it can keep simple state and stalls nobody else."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct


class Outcome(Struct, frozen=True):
    """Hold what a call of user code came to."""

    value: Any = None
    error: BaseException | None = None


class TookTooLong(Exception):
    """A call of user code passed its time limit."""


class LeftBehind(TookTooLong):
    """A call of sync user code passed its time limit; its thread was left to it and replaced."""


class Call:
    """Hold one call on its way through the thread. `started` is when it began, by the loop's clock."""

    __slots__ = ("arguments", "function", "future", "started")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], future: "asyncio.Future[Outcome]"
    ) -> None:
        self.function, self.arguments, self.future = function, arguments, future
        self.started = 0.0


class UserThread:
    """Run calls one after the other in a thread; calls and outcomes cross over in batches."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._worker: _Worker | None = None
        self._check: asyncio.TimerHandle | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Outcome]":
        """Call a function in the thread; its future holds the value or whatever was raised, SystemExit included.

        A call that takes longer than the limit gives LeftBehind, and the calls behind it go on in a new thread.
        """
        return self._put(function, arguments, next=False)

    def run_next(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Outcome]":
        """Do the same, before all the calls that wait."""
        return self._put(function, arguments, next=True)

    def _put(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], *, next: bool
    ) -> "asyncio.Future[Outcome]":
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = _Worker(loop, deque())
        call = Call(function, arguments, loop.create_future())
        self._worker.put(call, next=next)
        if self._check is None:
            self._check = loop.call_later(self._limit, self._look)
        return call.future

    def close(self) -> None:
        """Drop the calls that have not begun, and leave the thread to the one that runs."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._worker is not None:
            for call in self._worker.leave() or ():
                call.future.cancel()
            self._worker = None

    def _look(self) -> None:
        self._check = None
        worker = self._worker
        if worker is None or not worker.busy:
            return
        call, now = worker.current, worker.loop.time()
        overdue = None if call is None or now < call.started + self._limit else call
        if overdue is not None and (behind := worker.leave(overdue)) is not None:
            self._worker = _Worker(worker.loop, behind)
            call = None
            if not overdue.future.done():
                overdue.future.set_result(Outcome(error=LeftBehind(f"took longer than {self._limit:g} s")))
        due = (now if call is None else call.started) + self._limit
        self._check = worker.loop.call_later(max(0.001, due - now), self._look)


class _Worker:
    """Run calls in a thread of its own, until it is left."""

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: deque[Call]) -> None:
        self.loop = loop
        self.current: Call | None = None
        self._calls = calls
        self._left = False
        self._turn = threading.Lock()
        self._wake = threading.Event()
        self._done: deque[tuple[Call, Outcome]] = deque()
        self._announced = False
        threading.Thread(target=self._run, name="whereby-trigger-user-code", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a call runs or waits."""
        with self._turn:
            return self.current is not None or bool(self._calls)

    def put(self, call: Call, *, next: bool) -> None:
        """Have a call run after those that are there, or next."""
        with self._turn:
            if next:
                self._calls.appendleft(call)
            else:
                self._calls.append(call)
        if not self._wake.is_set():
            self._wake.set()

    def leave(self, call: Call | None = None) -> deque[Call] | None:
        """Leave the thread to the call that it runs, and give what waits behind.

        Given a call, None if the thread has gone on to another meanwhile: that one must not run unwatched.
        """
        with self._turn:
            if call is not None and self.current is not call:
                return None
            self._left = True
            behind, self._calls = self._calls, deque()
        self._wake.set()
        return behind

    def _run(self) -> None:
        while not self._left:
            while (call := self._next()) is not None:
                self._call(call)
            self._wake.wait()
            self._wake.clear()

    def _next(self) -> Call | None:
        with self._turn:
            while self._calls and self._calls[0].future.cancelled():
                self._calls.popleft()
            self.current = self._calls.popleft() if self._calls else None
            if self.current is not None:
                self.current.started = self.loop.time()
            return self.current

    def _call(self, call: Call) -> None:
        try:
            outcome = Outcome(call.function(*call.arguments))
        except BaseException as error:
            outcome = Outcome(error=error)
        self._done.append((call, outcome))
        if not self._announced:
            self._announced = True
            # A call that was left behind may outlive the loop that it was for.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._announced = False
        while self._done:
            call, outcome = self._done.popleft()
            if not call.future.done():
                call.future.set_result(outcome)
