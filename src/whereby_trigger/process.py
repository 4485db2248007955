"""The trigger's own process: its event loop, its signals, its deadlines, and its forced exit."""

import _thread
import asyncio
import faulthandler
import gc
import inspect
import logging
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from whereby_trigger.clock import boot_time
from whereby_trigger.errors import LifecycleError
from whereby_trigger.stderr import never_awaited, say_last
from whereby_trigger.threads import keep_running, short_turns

MOST = 65_536
"""More than we can use. Some systems allow a billion, and a program that closes each by number never starts."""


@contextmanager
def many_files() -> Iterator[None]:
    """Raise the soft limit of open files towards the hard one until the block ends, for a program that is ours."""
    try:
        import resource
    except ImportError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft == resource.RLIM_INFINITY or soft >= most or _Raised.by_default is not None:
        yield
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        # macOS refuses more than its kernel allows, even below the hard limit.
        yield
        return
    _Raised.by_default = soft
    try:
        yield
    finally:
        _Raised.by_default = None
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def default_files() -> int | None:
    """Return the soft limit before it was raised, or None if it was not."""
    return _Raised.by_default


class _Raised:
    by_default: int | None = None


@contextmanager
def taken(at_once: Callable[[signal.Signals], Callable[[], None]]) -> Iterator[None]:
    """Handle SIGINT and SIGTERM within the block; off the main thread no signal is taken.

    `at_once` is called even while user code blocks the loop, and must not touch the loop. What it returns is called in
    the running loop, when that comes to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def receive(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(at_once(signal.Signals(number)))

    before = {number: signal.signal(number, receive) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items() if not LastResort.keeps_signals else ():
            signal.signal(number, handler)


SAY_FIRST = 1.0
"""Seconds after which a countdown says for the first time how much time is left."""


class Countdown:
    """Call `say` again and again until a deadline, in a thread of its own, within a `with` block.

    Neither user code that blocks the loop nor the log's reader delays it, and nothing waits for it. `say` takes the
    seconds since the countdown began and those that are left, and returns the seconds until it is called again.
    `over` is called at the end.
    """

    def __init__(self, say: Callable[[float, float], float], over: Callable[[], object]) -> None:
        self._say, self._over = say, over
        # Its `put` may interrupt itself, as in a signal's handler.
        self._deadlines: SimpleQueue[float | None] = SimpleQueue()

    def __enter__(self) -> "Countdown":
        # At once: at the end, when it is needed, there may be no thread left to start.
        with suppress(RuntimeError, MemoryError):
            threading.Thread(target=self._run, name="whereby-trigger-countdown", daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()
        self._over()

    def begin(self, deadline: float) -> None:
        """Count down to a time of the boot clock; a signal's handler may call it."""
        self._deadlines.put(deadline)

    def end(self) -> None:
        """Say nothing more; a signal's handler may call it."""
        self._deadlines.put(None)

    def _run(self) -> None:
        deadline, began, pause = self._deadlines.get(), boot_time(), SAY_FIRST
        while deadline is not None:
            try:
                news = self._deadlines.get(timeout=pause)
            except Empty:
                now = boot_time()
                pause = self._say(now - began, max(0.0, deadline - now))
            else:
                deadline = news
        self._over()


LOOK = 0.1
EXIT_CODE = 70

LATE = 2.2
"""Seconds by which a forced exit may come after its deadline, its last words included."""

LOOKS = 5
"""How many looks in a row must find a deadline passed: after a machine slept, its loop gets a chance first."""

USUALLY_WITHIN = 2 * LOOKS * LOOK
"""Seconds after its deadline in which a process is ended, unless they are fewer; half of them are for the looks."""


class Watchdog:
    """Keep deadlines by name, in seconds of the boot clock. The process ends at once when one passes."""

    def __init__(self) -> None:
        self._deadlines: dict[str, tuple[float, Callable[[], bool], float]] = {}
        self._passed: dict[str, int] = {}
        self._pause = LOOK
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def set(
        self,
        name: str,
        deadline: float,
        applies: Callable[[], bool] = lambda: True,
        within: float = USUALLY_WITHIN,
    ) -> None:
        """End the process at `deadline` if it `applies` then, unless it is moved or cleared before.

        It ends at most `within` seconds later, its last words not counted, unless it was frozen meanwhile.
        """
        self._deadlines[name] = deadline, applies, min(LOOK, within / (2 * LOOKS))
        self.start()

    def start(self) -> None:
        """Start the thread now, unless it runs. Raises RuntimeError if no thread can be started."""
        if self._thread is None:
            thread = threading.Thread(None, keep_running, "whereby-trigger-watchdog", (self._look,), daemon=True)
            thread.start()
            self._thread = thread

    def clear(self, name: str) -> bool:
        """Forget a deadline; return whether it was set."""
        return self._deadlines.pop(name, None) is not None

    def close(self) -> None:
        """Forget every deadline and end the thread."""
        self._deadlines.clear()
        self._closed.set()

    def _look(self) -> bool:
        if self._closed.wait(self._pause):
            return False
        now, self._pause, passed = boot_time(), LOOK, self._passed
        for name, (deadline, applies, look) in list(self._deadlines.items()):
            late = now - deadline
            passed[name] = passed.get(name, 0) + 1 if late > 0 and applies() else 0
            if passed[name] >= LOOKS:
                _end_at_once(name)
            # Later than it could have been found, it passed while this process was frozen.
            if late <= 0 or (passed[name] and late <= 2 * LOOKS * look):
                self._pause = min(self._pause, max(look, -late))
        return True


class NoWatchdog(Watchdog):
    """Keep deadlines that nobody watches: for a test, whose process is not ours to end."""

    def start(self) -> None:
        pass


def _end_at_once(name: str) -> None:
    try:
        _last_acts(lambda: say_last(f"ended, user code did not return by the deadline of {name}"))
    finally:
        os._exit(EXIT_CODE)


AT_LEAST = 1.0
"""Seconds left for what winds down, even if the drain before took all of its time."""


ENDING = (signal.SIGINT, signal.SIGTERM)

SAY_WITHIN = 1.0
"""Seconds in which the last words are written: a reader that has stopped reading must not hold up the end."""

NOT_THEIRS = (sysconfig.get_path("stdlib"), str(Path(__file__).parent), "<frozen")


class LastResort:
    """End the process at the time that is set, unless the block is left before; with `to_the_end` even then.

    Its thread starts with the block: at the end the system may have no thread left. Signals that are taken in the block
    stay taken until its end, so no signal gets past. Off the main thread the process is somebody else's, and goes on.
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
        """End the process at a time of the boot clock, if there is one, with the exit code that it is about to have.

        From now on, another signal ends it at once.
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
        # It may interrupt any code, so nothing here waits for a lock.
        self._hurried = True

    def _wait(self) -> None:
        self._set.wait()
        while not self._left.wait(LOOK):
            if self._last is not None and (self._hurried or boot_time() >= self._end_at):
                _end_now(*self._last)


def _end_now(loop: asyncio.AbstractEventLoop, error: BaseException | None) -> None:
    try:
        _last_acts(lambda: _say_what_runs(loop, error), _flush_output, logging.shutdown)
    finally:
        # Even if no thread can be started.
        os._exit(0 if error is None else 1)


def _last_acts(*acts: Callable[[], object]) -> None:
    """Do each in a thread of its own, and wait for them at most SAY_WITHIN seconds in all.

    If nobody reads one stream, the other is still written. Code that blocks may hold any lock, such as the log's if it
    interrupted a line, or the one that `threading.Thread` takes: only the acts may wait for one.
    """
    over = time.monotonic() + SAY_WITHIN
    done: SimpleQueue[None] = SimpleQueue()
    begun = 0

    def do(act: Callable[[], object]) -> None:
        try:
            act()
        finally:
            done.put(None)

    try:
        for act in acts:
            _thread.start_new_thread(do, (act,))
            begun += 1
    except (RuntimeError, MemoryError):
        _act_here(acts[begun:])
    with suppress(Empty):
        for _ in range(begun):
            done.get(timeout=max(0.0, over - time.monotonic()))


def _act_here(acts: Iterable[Callable[[], object]]) -> None:
    """Do each in this thread, if the process ends even though one blocks: with exit code 1, after SAY_WITHIN seconds.

    Early releases of Python 3.12 start no thread once they wait for others at their end.
    """
    with suppress(RuntimeError, MemoryError, OSError):
        faulthandler.dump_traceback_later(SAY_WITHIN, exit=True, file=os.open(os.devnull, os.O_WRONLY))
        for act in acts:
            with suppress(Exception):
                act()


def _say_what_runs(loop: asyncio.AbstractEventLoop, error: BaseException | None) -> None:
    raised = "" if error is None else "".join(traceback.format_exception(error))
    runs = ", ".join(sorted(set(_what_runs(loop)))) or "no function of yours"
    say_last(f"ended while this still ran: {runs}", raised)


def _flush_output() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()


def _what_runs(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """Return where user code is, in each task of the loop and in each thread that holds up the end."""
    frames = sys._current_frames()
    threads = [_callers(frames.get(thread.ident or 0)) for thread in threading.enumerate() if not thread.daemon]
    tasks = [_awaiting(task.get_coro()) for task in asyncio.all_tasks(loop)]
    for stack in (*threads, *tasks):
        yield from _innermost_of_theirs(stack)


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    # The code that started the loop is no longer at work.
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


COLLECT_AFTER = 10_000
"""How many objects may be made and not freed before Python looks for reference cycles among them.

Its default is 700, which a dozen webhooks under way take, and hardly any of them is in a cycle.
"""


def run(
    serving: Coroutine[Any, Any, None], end_by: Callable[[], float | None] = lambda: None, *, to_the_end: bool = False
) -> None:
    """Run a coroutine to its end in an event loop of its own. Blocks.

    Tasks and threads of the loop that it leaves behind have until `end_by()`, in seconds of the boot clock, and then
    end with the process. With `to_the_end`, so does everything that still runs after this has returned.
    """
    runner = asyncio.Runner(loop_factory=_loop_factory())
    quiet_end = never_awaited(to_the_end)
    with many_files(), _rare_collections(), short_turns(), quiet_end, LastResort(to_the_end) as last_resort, runner:
        try:
            runner.run(serving)
        finally:
            last_resort.set(end_by, runner.get_loop())


@contextmanager
def importing() -> Iterator[None]:
    """Make every `start()` return at once while the command line imports a program that calls it."""
    _Importing.active = True
    try:
        yield
    finally:
        _Importing.active = False


def is_being_imported() -> bool:
    """Return True if the command line is importing a program now."""
    return _Importing.active


@contextmanager
def without_effects() -> Iterator["RefusedEffects"]:
    """Refuse whatever a trigger does to the world until the block ends, in every thread; yield what was refused.

    This is for user code that is only asked what it would answer.
    """
    refused = _Effects.refused = RefusedEffects()
    try:
        yield refused
    finally:
        _Effects.refused = None


def check_effect(call: str) -> None:
    """Raise LifecycleError if effects are refused; `call` is what was called, for a person: `trigger.emit()`."""
    if _Effects.refused is not None:
        raise _Effects.refused.refuse(call)


class RefusedEffects:
    """Keep the first effect that was refused: user code may catch the error and go on."""

    def __init__(self) -> None:
        self.first: LifecycleError | None = None

    def refuse(self, call: str) -> LifecycleError:
        """Return the error that says what was called, and where."""
        error = LifecycleError(
            f"{call} was called{_called_at()} while predicates were only asked, without effect: a predicate returns "
            "True or False and does nothing else; do it in a listener, e.g. of TRIGGER_EVENT_SUCCESS"
        )
        self.first = self.first or error
        return error


def _called_at() -> str:
    frame = sys._getframe()
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if not file.is_relative_to(_OURS) and not file.is_relative_to(sysconfig.get_path("stdlib")):
            return f" at {file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


_OURS = Path(__file__).parent


def in_event_loop() -> bool:
    """Return True if an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _rare_collections() -> Iterator[None]:
    before = young, *older = gc.get_threshold()
    gc.set_threshold(max(young, COLLECT_AFTER) if young else 0, *older)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Importing:
    active = False


class _Effects:
    refused: RefusedEffects | None = None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
