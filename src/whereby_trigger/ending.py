"""The end of a process at a time that is set, whatever user code still does in it."""

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from whereby_trigger.boot import boot_time
from whereby_trigger.stderr import say_last

AT_LEAST = 1.0
"""Seconds that are given to what winds down, even where the drain before took all of its time."""

LOOK = 0.1

ENDING = (signal.SIGINT, signal.SIGTERM)

SAY_WITHIN = 1.0
"""Seconds in which the last words are written: whoever reads no more of them must not hold up the end."""

NOT_THEIRS = (sysconfig.get_path("stdlib"), str(Path(__file__).parent), "<frozen")


class LastResort:
    """End the process at the time that is set, unless the block is left before; with `to_the_end` all the same.

    Its thread starts with the block: at the end there may be none left. Signals that are taken in the block stay taken
    until its end, so that none comes in between. Off the main thread the process is somebody else's, and goes on.
    """

    keeps_signals = False

    def __init__(self, to_the_end: bool) -> None:
        self._to_the_end = to_the_end
        self._set = threading.Event()
        self._left = threading.Event()
        self._end_at = 0.0
        self._hurried = False
        self._last: tuple[asyncio.AbstractEventLoop, BaseException | None] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "LastResort":
        if threading.current_thread() is threading.main_thread():
            threading.Thread(target=self._wait, name="whereby-trigger-last-resort", daemon=True).start()
            self._before = {number: signal.getsignal(number) for number in ENDING}
            LastResort.keeps_signals = True
        return self

    def __exit__(self, *raised: object) -> None:
        LastResort.keeps_signals = False
        if self._last is None or not self._to_the_end:
            self._left.set()
            self._set.set()
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def set(self, end_by: Callable[[], float | None], loop: asyncio.AbstractEventLoop) -> None:
        """Have the process end at a time of the boot clock, if any, with the exit code that it is about to have.

        From now on a signal that asks for the end once more has it end at once.
        """
        if end_by() is None or threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            signal.signal(number, self._end_now)
        # Read after that: a signal that came just before has moved it.
        self._end_at = max(boot_time() + AT_LEAST, end_by() or 0.0)
        self._last = loop, sys.exc_info()[1]
        self._set.set()

    def _end_now(self, number: int, frame: FrameType | None) -> None:
        # It may interrupt whatever runs: nothing in here waits for a lock.
        self._hurried = True

    def _wait(self) -> None:
        self._set.wait()
        while not self._left.wait(LOOK):
            if self._last is not None and (self._hurried or boot_time() >= self._end_at):
                _end_process(*self._last)


def _end_process(loop: asyncio.AbstractEventLoop, error: BaseException | None) -> None:
    try:
        # Apart, so that whoever does not read one of them keeps the other from nobody.
        acts = [threading.Thread(target=_say_what_runs, args=(loop, error), daemon=True)]
        acts += [threading.Thread(target=act, daemon=True) for act in (_flush_output, logging.shutdown)]
        over = time.monotonic() + SAY_WITHIN
        with suppress(RuntimeError):
            for act in acts:
                act.start()
        for act in acts:
            if act.ident is not None:
                act.join(max(0.0, over - time.monotonic()))
    finally:
        # Even if no thread can be started.
        os._exit(0 if error is None else 1)


def _say_what_runs(loop: asyncio.AbstractEventLoop, error: BaseException | None) -> None:
    raised = "" if error is None else "".join(traceback.format_exception(error))
    runs = ", ".join(sorted(set(_what_runs(loop)))) or "no function of yours"
    say_last(f"{raised}whereby-trigger: ended while this still ran: {runs}\n")


def _flush_output() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _what_runs(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """Give the place in each task of the loop, and in each thread that holds up the end, where user code is."""
    frames = sys._current_frames()
    threads = [_callers(frames.get(thread.ident or 0)) for thread in threading.enumerate() if not thread.daemon]
    tasks = [_awaiting(task.get_coro()) for task in asyncio.all_tasks(loop)]
    for stack in (*threads, *tasks):
        yield from _innermost_of_theirs(stack)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    # Whoever has the loop run is at work no more.
    while frame is not None and frame.f_code.co_filename != asyncio.runners.__file__:
        yield frame
        frame = frame.f_back


def _awaiting(coroutine: Any) -> list[FrameType]:
    frames: list[FrameType] = []
    while inspect.iscoroutine(coroutine):
        frames += [coroutine.cr_frame] if coroutine.cr_frame is not None else []
        coroutine = coroutine.cr_await
    return frames[::-1]


def _innermost_of_theirs(stack: Iterable[FrameType]) -> Iterator[str]:
    for frame in stack:
        code = frame.f_code
        if not code.co_filename.startswith(NOT_THEIRS):
            yield f"{code.co_qualname} at {Path(code.co_filename).name}:{frame.f_lineno}"
            return
