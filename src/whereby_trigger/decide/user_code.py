"""How user code is called: sync code in its thread, async code on the loop, and no exception of either gets further."""

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from whereby_trigger.decide.functions import UserFunction
from whereby_trigger.decide.user_thread import Outcome, TookTooLong, UserThread

MAX_DESCRIPTION = 500


class UserCode:
    """Call user code on behalf of one running trigger. `limit` bounds a predicate and any sync call, in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._thread = UserThread(limit)
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, function: UserFunction, arguments: tuple[Any, ...], is_async: bool) -> Outcome:
        """Call a function within the time limit, and await what it returns where that can be awaited."""
        if is_async:
            return await self._awaited(function(*arguments))
        outcome = await self._thread.run(function, *arguments)
        if outcome.error is None and inspect.isawaitable(outcome.value):
            return await self._awaited(outcome.value)
        return outcome

    async def tell(
        self,
        function: UserFunction,
        arguments: tuple[Any, ...],
        is_async: bool,
        failed: Callable[[BaseException], None],
    ) -> BaseException | None:
        """Call a listener: a sync one to its end, an async one as a task of its own, without a limit.

        Return what a sync one raised; `failed` is told later what an async one raised.
        """
        if is_async:
            self._spawn(function(*arguments), failed)
            return None
        outcome = await self._thread.run(function, *arguments)
        if outcome.error is None and inspect.isawaitable(outcome.value):
            self._spawn(_as_coroutine(outcome.value), failed)
        return outcome.error

    async def drain(self, timeout: float) -> None:
        """Wait for the listeners that still run, and cancel those that run on after `timeout` seconds."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    def close(self) -> None:
        self._thread.close()

    async def _awaited(self, awaitable: Awaitable[Any]) -> Outcome:
        current = asyncio.current_task()
        cancelled = current.cancelling() if current else 0
        try:
            async with asyncio.timeout(self._limit) as limit:
                return Outcome(await awaitable)
        except asyncio.CancelledError as error:
            if current is not None and current.cancelling() > cancelled:
                raise
            return Outcome(error=error)
        except BaseException as error:
            if limit.expired():
                return Outcome(error=TookTooLong(f"took longer than {self._limit:g} s"))
            return Outcome(error=error)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None]) -> None:
        task = asyncio.create_task(_guarded(coroutine, failed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _guarded(coroutine: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None]) -> None:
    # SystemExit that leaves a task ends the loop, and with it the process.
    try:
        await coroutine
    except BaseException as error:
        failed(error)


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def kind(error: BaseException) -> str:
    """Say what happened without the exception's own text, which may hold a person's name."""
    if isinstance(error, TookTooLong):
        return str(error)
    if isinstance(error, RuntimeError) and "no running event loop" in str(error):
        return "needs the event loop: make it `async def`, sync code runs in a thread"
    return f"raised {type(error).__name__}"


def describe(error: BaseException) -> str:
    """Say in full, for the store alone, what was raised and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def storable(text: str) -> str:
    """Make a text fit for every store: no lone surrogate, no NUL, of bounded length."""
    clean = text.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= MAX_DESCRIPTION else clean[: MAX_DESCRIPTION - 1] + "…"
