"""Threads of our own for blocking calls, their turns, and how to recognise that threads, files or memory run short.

User code may fill the event loop's default executor. A shortage is no fault of the work that fails.
"""

import asyncio
import errno
import mmap
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

MEMORY_AGAIN: Final = 0.05
"""Seconds after which a thread of ours that had no memory goes on."""


def keep_running(step: Callable[[], bool]) -> None:
    """Call `step` until it returns False: no error, such as a lack of memory, ends the thread that calls this.

    Others would wait for the thread in vain, and nothing would say that it is gone.
    """
    while True:
        try:
            if not step():
                return
        except Exception:
            time.sleep(MEMORY_AGAIN)


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: Any) -> None:
    """Call a function in an event loop, from another thread; do nothing if the loop is closed.

    Without memory it is tried again until there is some: somebody waits for what the function says.
    """
    while True:
        try:
            loop.call_soon_threadsafe(callback, *arguments)
        except MemoryError:
            time.sleep(MEMORY_AGAIN)
        except RuntimeError:
            return
        else:
            return


class OwnThread:
    """Run functions one after the other in a thread that starts at once and never delays the process's exit.

    Raises RuntimeError if the thread cannot be started.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_closed = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"whereby-trigger-{name}", daemon=True).start()

    def run(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Call a function after those already queued; the future resolves to what it returns or raises.

        After `end` it fails with RuntimeError.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._is_closed:
            future.set_exception(RuntimeError("it is closed"))
        else:
            self._jobs.put(partial(self._do, future, function, arguments))
        return future

    async def open(self, close: Callable[[T], None], function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function opens. If the caller is cancelled meanwhile, `close` it, in the thread."""
        opened: list[T] = []
        opening = self.run(lambda: opened.append(function(*arguments)))
        try:
            await opening
        except asyncio.CancelledError:
            self._jobs.put(partial(_close_all, close, opened))
            raise
        return opened.pop()

    def end(self) -> None:
        """End the thread once it has run everything queued."""
        self._is_closed = True
        self._jobs.put(None)

    async def close(self, within: float) -> bool:
        """Do the same, and return True if the thread has ended within `within` seconds."""
        self.end()
        await asyncio.wait({self._ended}, timeout=within)
        return self._ended.done()

    def _run(self) -> None:
        keep_running(self._do_next)
        self._tell(self._ended, None, None)

    def _do_next(self) -> bool:
        if (job := self._jobs.get()) is None:
            return False
        job()
        return True

    def _do(self, future: "asyncio.Future[T]", function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        try:
            outcome = function(*arguments)
        except BaseException as error:
            self._tell(future, None, error)
        else:
            self._tell(future, outcome, None)

    def _tell(self, future: "asyncio.Future[Any]", outcome: Any, error: BaseException | None) -> None:
        call_in(self._loop, _settle, future, outcome, error)


def _close_all(close: Callable[[T], None], opened: list[T]) -> None:
    for each in opened:
        # Nobody is there to hear of it.
        with suppress(Exception):
            close(each)


async def open_in_thread(close: Callable[[T], None], function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function opens in a thread of its own; raises its errors, and RuntimeError without a thread.

    If the caller is cancelled meanwhile, `close` it, in the thread.
    """
    thread = OwnThread("call")
    try:
        return await thread.open(close, function, *arguments)
    finally:
        thread.end()


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


TURN: Final = 0.001
"""Seconds that a thread may run Python while others wait for that; 0.005 by default.

A commit has about 20 such waits. Beside one predicate that only computes, a delivery took 100 ms with the default, and
20 ms with this, at the same throughput (bench/tried.md).
"""


@contextmanager
def short_turns() -> Iterator[None]:
    """Limit how long a thread runs Python while others wait, to TURN, until the block ends."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


FILES: Final = "files (see RLIMIT_NOFILE)"
THREADS: Final = "threads or processes (see RLIMIT_NPROC, and the container's pids limit)"
MEMORY: Final = "memory"

ERRORS: Final = {
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.EAGAIN: THREADS,
    errno.ENOMEM: MEMORY,
}
"""What is short, by error number. Source: Linux man pages, pipe(2), fork(2), open(2), mmap(2)."""

NO_THREAD: Final = "can't start new thread"
"""The text of CPython's RuntimeError for a lack of threads, which has no class of its own."""

TRIED: Final = 16 * 1024 * 1024
"""Bytes to request to find out if there is memory: the size of a thread's stack and a page cache."""


def shortage_of(error: BaseException | None) -> str | None:
    """Return what the process is out of according to an error; None if the error is about anything else."""
    if isinstance(error, MemoryError):
        return MEMORY
    if type(error) is RuntimeError and [part for part in error.args if type(part) is str and NO_THREAD in part]:
        return THREADS
    return ERRORS.get(error.errno or 0) if isinstance(error, OSError) else None


def shortage_now(error: BaseException | None) -> str | None:
    """Do the same for an error of user code, but only if we cannot get any either: it may be about its own limits."""
    try:
        short = shortage_of(error)
    except BaseException:
        # A user's exception class may raise another error when it is inspected.
        return None
    return short if short is not None and is_short(short) else None


def named_in(text: str) -> str | None:
    """Return what the system is out of according to the last words of a program; None if they say nothing of it."""
    return next((short for number, short in ERRORS.items() if os.strerror(number) in text), None)


def is_short(short: str) -> bool:
    """Return True if this process cannot get any of it now: FILES, THREADS or MEMORY."""
    try:
        if short == FILES:
            for end in os.pipe():
                os.close(end)
        elif short == THREADS:
            threading.Thread(target=int, daemon=True).start()
        else:
            mmap.mmap(-1, TRIED).close()
    except (OSError, RuntimeError, MemoryError) as error:
        return shortage_of(error) is not None
    return False
