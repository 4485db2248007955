"""A clock that a test puts forward: what waits by it goes on at once, in the order in which it comes due."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any
from weakref import WeakSet

from msgspec import Struct

from whereby_trigger.clock import Clock, boot_clock, boot_time


class _Sleeper(Struct, eq=False):
    """Hold that a task waits: until an event, or until `due` by the boot clock. `polls`: it looks after every move."""

    event: asyncio.Event
    due: float
    polls: bool
    limit: asyncio.Timeout
    woken: bool = False


class _Timer(Struct, eq=False):
    due: float
    callback: Callable[[], None]
    handle: asyncio.TimerHandle


class MovableClock(Clock):
    """Go with the machine's clocks, plus the seconds it was put forward by."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time() + self._ahead, lambda: boot_time() + self._ahead)
        self._ahead = 0.0
        self._waiting: dict[asyncio.Task[Any], _Sleeper] = {}
        self._timers: set[_Timer] = set()
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def lease(self) -> tuple[str, float]:
        """Return the time as a store's clock does."""
        return boot_clock()[0], self.boot()

    async def sleep(self, seconds: float) -> None:
        await self._wait(asyncio.Event(), self.boot() + seconds)

    async def until(self, event: asyncio.Event, at: float) -> None:
        await self._wait(event, at)

    async def poll(self, event: asyncio.Event, seconds: float) -> None:
        await self._wait(event, self.boot() + seconds, polls=True)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._arm(self.boot() + seconds, callback)

    def move_to(self, at: float) -> None:
        """Put the boot clock forward to a time, and the wall clock by as much; wake what is due, and what polls."""
        self._ahead += max(0.0, at - self.boot())
        now = self.boot()
        for waiting in self._waiting.values():
            self._move(waiting, now)
        for timer in list(self._timers):
            timer.handle.cancel()
            self._timers.discard(timer)
            if timer.due <= now:
                timer.callback()
            else:
                self._arm(timer.due, timer.callback)

    def next_due(self) -> float:
        """Return when something comes due next, by the boot clock; infinity if nothing waits for a time."""
        dues = [waiting.due for waiting in self._waiting.values() if not waiting.polls]
        return min((*dues, *(timer.due for timer in self._timers)), default=inf)

    def rests(self, task: "asyncio.Task[Any]") -> bool:
        """Return True if a task waits by this clock, and neither its event nor its time has come."""
        waiting = self._waiting.get(task)
        if waiting is None or waiting.woken or waiting.event.is_set():
            return False
        return waiting.due > self.boot() and not waiting.limit.expired()

    @property
    def all_rest(self) -> bool:
        """True if every task that has waited by this clock does so now, or has ended."""
        return all(task.done() or self.rests(task) for task in self._tasks)

    async def _wait(self, event: asyncio.Event, due: float, *, polls: bool = False) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._tasks.add(task)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if due == inf else max(0.0, due - self.boot())) as limit:
                self._waiting[task] = _Sleeper(event, due, polls, limit)
                try:
                    await event.wait()
                finally:
                    del self._waiting[task]

    def _move(self, waiting: _Sleeper, now: float) -> None:
        if waiting.woken or waiting.limit.expired():
            return
        loop_time = asyncio.get_running_loop().time()
        if waiting.polls or waiting.due <= now:
            waiting.woken = True
            waiting.limit.reschedule(loop_time)
        elif waiting.due < inf:
            waiting.limit.reschedule(loop_time + waiting.due - now)

    def _arm(self, due: float, callback: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            callback()

        later = asyncio.get_running_loop().call_later(max(0.0, due - self.boot()), fire)
        timer = _Timer(due, callback, later)
        self._timers.add(timer)
