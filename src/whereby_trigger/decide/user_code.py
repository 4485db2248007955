"""How user code is called: sync code in its thread, async code on the loop, and no exception of either gets further."""

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from whereby_trigger.decide.user_thread import Outcome, TookTooLong, UserThread
from whereby_trigger.functions import UserFunction

WIND_DOWN = 1.0
"""Seconds that async code which was cancelled is waited for, in case it ignores that."""

Arguments = tuple[Any, ...]


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

    def ask(self, function: UserFunction, arguments: Arguments, is_async: bool) -> Awaitable[Outcome]:
        """Call a function within the time limit, and await what it returns where that can be awaited."""
        return self._within_limit(function, arguments) if is_async else self._ask_sync(function, arguments)

    def tell(
        self,
        function: UserFunction,
        arguments: Arguments,
        is_async: bool,
        failed: Callable[[BaseException], None],
    ) -> Awaitable[None]:
        """Call a listener: a sync one to its end, an async one as a task of its own, without a limit.

        `failed` is told what it raised: of an async one later, when it does. An async one has begun when this returns.
        """
        begin = self._begin if is_async else self._tell_sync
        return begin(function, arguments, failed)

    @property
    def runs_here(self) -> bool:
        """Whether this is open, and the running loop its own."""
        return not self._closed and asyncio.get_running_loop() is self._loop

    @property
    def idle(self) -> bool:
        """Whether no async code runs."""
        return not self._tasks

    @property
    def short(self) -> str:
        """Why sync code is not called now; "" if it is."""
        return self._thread.short

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

    async def _ask_sync(self, function: UserFunction, arguments: Arguments) -> Outcome:
        outcome = await self._run_sync(function, *arguments)
        if _is_awaitable(outcome.value):
            return await self._within_limit(_itself, (outcome.value,))
        return outcome

    async def _tell_sync(
        self, function: UserFunction, arguments: Arguments, failed: Callable[[BaseException], None]
    ) -> None:
        outcome = await self._run_sync(function, *arguments)
        if outcome.error is not None:
            failed(outcome.error)
        elif _is_awaitable(outcome.value):
            await self._begin(_itself, (outcome.value,), failed)

    async def _begin(
        self, function: UserFunction, arguments: Arguments, failed: Callable[[BaseException], None]
    ) -> None:
        # A decision may say that the listener was called only once its first step has been taken.
        await self._first_step(self._loop.create_task(_told(function, arguments, failed)))

    async def _within_limit(self, function: UserFunction, arguments: Arguments) -> Outcome:
        task = self._loop.create_task(_outcome(function, arguments))
        try:
            await self._first_step(task)
            if task.done() or await _ended(task, self._limit):
                return task.result()
            task.cancel()
            await _ended(task, WIND_DOWN)
            return Outcome(error=TookTooLong(f"took longer than {self._limit:g} s"))
        finally:
            task.cancel()

    async def _first_step(self, task: asyncio.Task[Any]) -> None:
        """Let a task take its first step, which is the last of most user code, and look after it from then on."""
        try:
            await asyncio.sleep(0)
        finally:
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


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
