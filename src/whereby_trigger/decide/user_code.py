"""How user code is called: sync code in its thread, async code on the loop, and no exception of either gets further."""

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from whereby_trigger.decide.user_thread import Outcome, TookTooLong, UserThread
from whereby_trigger.functions import UserFunction

WIND_DOWN = 1.0
"""Seconds that async code which was cancelled is waited for, in case it ignores that."""

Arguments = tuple[Any, ...]
T = TypeVar("T")


class UserCode:
    """Call user code in one running loop. `limit` bounds a predicate and any sync call, in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = UserThread(limit)
        self._run_sync = self._thread.run
        self._tasks: set[asyncio.Task[Any]] = set()

    def ahead(self) -> "UserCode":
        """Give the same user code, with its sync calls before all that wait for the thread."""
        twin = copy.copy(self)
        twin._run_sync = self._thread.run_next
        return twin

    async def ask(self, function: UserFunction, arguments: Arguments, is_async: bool) -> Outcome:
        """Call a function within the time limit, and await what it returns where that can be awaited."""
        if is_async:
            return await self._within_limit(_outcome(function, arguments))
        outcome = await self._run_sync(function, *arguments)
        if _is_awaitable(outcome.value):
            return await self._within_limit(_outcome(_itself, (outcome.value,)))
        return outcome

    async def tell(
        self,
        function: UserFunction,
        arguments: Arguments,
        is_async: bool,
        failed: Callable[[BaseException], None],
    ) -> None:
        """Call a listener: a sync one to its end, an async one as a task of its own, without a limit.

        `failed` is told what it raised: of an async one later, when it does. An async one has begun when this returns.
        """
        if is_async:
            await self._begin(function, arguments, failed)
            return
        outcome = await self._run_sync(function, *arguments)
        if outcome.error is not None:
            failed(outcome.error)
        elif _is_awaitable(outcome.value):
            await self._begin(_itself, (outcome.value,), failed)

    @property
    def runs_here(self) -> bool:
        """Whether this is open, and the running loop its own."""
        return not self._closed and asyncio.get_running_loop() is self._loop

    @property
    def idle(self) -> bool:
        """Whether no async code runs."""
        return not self._tasks

    async def drain(self, timeout: float) -> None:
        """Wait for the async code that runs, and cancel what runs on after `timeout` seconds."""
        if self.idle:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=WIND_DOWN)

    def close(self) -> None:
        """End the thread; a call that hangs in it is left behind."""
        self._closed = True
        self._thread.close()

    async def _begin(
        self, function: UserFunction, arguments: Arguments, failed: Callable[[BaseException], None]
    ) -> None:
        _ = self._start(_told(function, arguments, failed))
        # A decision may say that the listener was called only once its first step has been taken.
        await asyncio.sleep(0)

    async def _within_limit(self, coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
        task = self._start(coroutine)
        try:
            if await _ended(task, self._limit):
                return task.result()
            task.cancel()
            await _ended(task, WIND_DOWN)
            return Outcome(error=TookTooLong(f"took longer than {self._limit:g} s"))
        finally:
            task.cancel()

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _ended(task: asyncio.Task[Any], within: float) -> bool:
    await asyncio.wait((task,), timeout=within)
    return task.done()


async def _told(function: UserFunction, arguments: Arguments, failed: Callable[[BaseException], None]) -> None:
    outcome = await _outcome(function, arguments)
    if outcome.error is not None:
        failed(outcome.error)


async def _outcome(function: UserFunction, arguments: Arguments) -> Outcome:
    # SystemExit that leaves a task ends the loop, and with it the process.
    try:
        return Outcome(await function(*arguments))
    except BaseException as error:
        return Outcome(error=error)


def _itself(awaitable: Awaitable[Any]) -> Awaitable[Any]:
    return awaitable


def _is_awaitable(value: object) -> bool:
    # A proxy object may raise when it is looked at.
    try:
        return inspect.isawaitable(value)
    except Exception:
        return False
