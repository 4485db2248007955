"""The one thread in which sync user code runs, in order, so that it can keep simple state and stalls nobody else."""

import asyncio
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
    """A call of sync user code passed its time limit; its thread was left behind and replaced."""


class Call:
    """Hold one call on its way through the thread. `started` is when it began, by the loop's clock."""

    __slots__ = ("arguments", "function", "future", "started")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], future: "asyncio.Future[Outcome]"
    ) -> None:
        self.function, self.arguments, self.future = function, arguments, future
        self.started: float | None = None


class UserThread:
    """Run calls one after the other in a thread; calls and outcomes cross over in batches."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._worker: _Worker | None = None
        self._check: asyncio.TimerHandle | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Outcome]":
        """Call a function in the thread; its future holds the value or whatever was raised, SystemExit included.

        A call that takes longer than the limit gives TookTooLong, and the calls behind it go on in a new thread.
        """
        loop = asyncio.get_running_loop()
        if self._worker is None or self._worker.loop is not loop:
            self._worker = _Worker(loop)
        call = Call(function, arguments, loop.create_future())
        self._worker.put(call)
        if self._check is None:
            self._check = loop.call_later(self._limit, self._look)
        return call.future

    def close(self) -> None:
        """End the thread when its calls are done; one that hangs is left behind."""
        if self._check is not None:
            self._check.cancel()
            self._check = None
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _look(self) -> None:
        self._check = None
        worker = self._worker
        if worker is None:
            return
        call, now = worker.current, worker.loop.time()
        if call is not None and call.started is not None and now - call.started >= self._limit:
            self._worker = worker.replace()
            if not call.future.done():
                call.future.set_result(Outcome(error=TookTooLong(f"took longer than {self._limit:g} s")))
            call = None
        if self._worker is not None and self._worker.busy:
            started = call.started if call is not None and call.started is not None else now
            self._check = worker.loop.call_later(max(0.001, started + self._limit - now), self._look)


class _Worker:
    def __init__(self, loop: asyncio.AbstractEventLoop, calls: deque[Call] | None = None) -> None:
        self.loop = loop
        self.current: Call | None = None
        self._calls = deque() if calls is None else calls
        self._wake = threading.Event()
        self._done: deque[tuple[Call, Outcome]] = deque()
        self._announced = False
        self._abandoned = False
        self._ending = False
        if self._calls:
            self._wake.set()
        threading.Thread(target=self._run, name="whereby-trigger-user-code", daemon=True).start()

    @property
    def busy(self) -> bool:
        return self.current is not None or bool(self._calls)

    def put(self, call: Call) -> None:
        self._calls.append(call)
        if not self._wake.is_set():
            self._wake.set()

    def end(self) -> None:
        self._ending = True
        self._wake.set()

    def replace(self) -> "_Worker":
        """Leave this thread to its hanging call, and give the calls behind it to a new one."""
        self._abandoned = True
        calls, self._calls = self._calls, deque()
        return _Worker(self.loop, calls)

    def _run(self) -> None:
        while not self._abandoned:
            self._wake.wait()
            self._wake.clear()
            while self._calls and not self._abandoned:
                self._call(self._calls.popleft())
            if self._ending and not self._calls:
                return

    def _call(self, call: Call) -> None:
        call.started = self.loop.time()
        self.current = call
        try:
            outcome = Outcome(call.function(*call.arguments))
        except BaseException as error:
            outcome = Outcome(error=error)
        self.current = None
        self._done.append((call, outcome))
        if not self._announced and not self.loop.is_closed():
            self._announced = True
            self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._announced = False
        while self._done:
            call, outcome = self._done.popleft()
            if not call.future.done():
                call.future.set_result(outcome)
