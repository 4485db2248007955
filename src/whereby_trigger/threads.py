"""Threads of our own for blocking calls: user code may fill the event loop's default executor."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class OwnThread:
    """Run functions one after the other in a thread that starts at once and never delays the process's exit.

    Raises RuntimeError if the thread cannot be started.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"whereby-trigger-{name}", daemon=True).start()

    def run(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Call a function after those already queued; the future resolves to what it returns or raises."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(partial(self._do, future, function, arguments))
        return future

    def end(self) -> None:
        """End the thread once it has run everything queued."""
        self._jobs.put(None)

    async def close(self, within: float) -> bool:
        """Do the same, and return True if the thread has ended within `within` seconds."""
        self.end()
        await asyncio.wait({self._ended}, timeout=within)
        return self._ended.done()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._tell(self._ended, None, None)

    def _do(self, future: "asyncio.Future[T]", function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        try:
            outcome = function(*arguments)
        except BaseException as error:
            self._tell(future, None, error)
        else:
            self._tell(future, outcome, None)

    def _tell(self, future: "asyncio.Future[Any]", outcome: Any, error: BaseException | None) -> None:
        # The loop may have been closed meanwhile.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, future, outcome, error)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Return a function's result from a thread of its own; raises its errors, and RuntimeError without a thread."""
    thread = OwnThread("call")
    try:
        return await thread.run(function, *arguments)
    finally:
        thread.end()


def _settle(future: "asyncio.Future[Any]", outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
