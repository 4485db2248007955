"""Write to standard error without waiting for its reader: neither the event loop nor a forced exit ever blocks."""

import atexit
import io
import math
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TextIO

from whereby_trigger.threads import keep_running

MOST_LINES: Final = 4096
MOST_CHARACTERS: Final = 2 * 1024 * 1024
"""Maximum lines that wait to be written, and the characters in all of them."""

WHOLE: Final = 4096
"""Bytes that a pipe takes in one piece (PIPE_BUF): up to that, lines of several processes do not mix."""

WHOLE_IN_FILE: Final = 64 * 1024
"""Bytes written in one piece to a regular file, which takes any number whole."""

FLUSH_WITHIN: Final = 1.0
"""Seconds that an exit waits for the lines logged before it."""

COUNT_WITHIN: Final = 0.2
"""Seconds that it then waits for the line that says how many of them a slow reader has left."""

DESCRIPTORS: Final = (0, 1, 2)

CLEAR: Final = b"\r\x1b[K"
"""Clear the line of a terminal on which the cursor is."""

Line = str | Callable[[], str]
"""Text that ends in a newline, or a function that returns it, called by the writing thread."""


class _Waiting(NamedTuple):
    """Hold a line that waits, its characters, and the lines that count as dropped if it is; `written` is set after."""

    line: Line
    size: int
    stands_for: int
    written: threading.Event | None = None

    @property
    def reports(self) -> bool:
        """True for a line of our own, which says how many were dropped."""
        return self.size == 0 and self.stands_for > 0


class LineWriter:
    """Write lines to a stream in a thread of its own.

    Lines that do not fit, or cannot be written, are dropped and counted; `note` returns the line that says how many.
    `last` returns the last words of a process from a text and a traceback, which may be "".
    Any thread may call it at any time, also a signal handler: it never raises and never waits for the reader.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.note: Callable[[int], str] = _note
        self.last: Callable[[str, str], str] = _last
        self._stalled = False
        self._begin_empty()
        self._direct = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    @property
    def dropped(self) -> int:
        """The number of dropped lines that no line has reported yet."""
        return self._dropped

    @property
    def dropped_in_all(self) -> int:
        """The number of lines dropped so far, reported or not."""
        with self._lock:
            return self._told + self._dropped

    def put(self, line: Line, size: int) -> None:
        """Queue a line of about `size` characters, or drop it if too many wait."""
        if self._direct:
            self._write_at_once(line)
            return
        with self._lock:
            if self._queue and (len(self._queue) >= MOST_LINES or self._size + size > MOST_CHARACTERS):
                self._dropped += 1
                return
            self._report_dropped()
            self._queue.append(_Waiting(line, size, 1))
            self._size += size
            self._wake()

    def put_later(self, line: Line, seconds: float) -> bool:
        """Queue a line in `seconds`, or at a flush before that; return False if there is no thread to do so."""
        if self._direct:
            return False
        with self._lock:
            if not self._wake():
                return False
            self._later.append((time.monotonic() + seconds, line))
        return True

    def show_status(self, text: str) -> None:
        """Show a text below all lines of a terminal, in place of the one before; "" shows none."""
        with self._lock:
            self._status = text
            if not self._direct:
                self._queue.append(_Waiting("", 0, 0))
                self._wake()

    def have_thread(self) -> None:
        """Write in a thread again, in a forked child that is about to run an event loop."""
        self._direct = False

    def flush(self, within: float = FLUSH_WITHIN) -> bool:
        """Wait at most `within` seconds until all lines so far are written or dropped; return True if they are.

        If the reader has stalled once, later calls do not wait until it has read something.
        """
        if self._direct or threading.current_thread() is self._thread:
            return True
        written = threading.Event()
        with self._lock:
            self._queue_due(math.inf)
            self._report_dropped()
            self._queue.append(_Waiting("", 0, 0, written))
            writes = self._wake()
            within = 0.0 if self._stalled else within
        done = writes and written.wait(within)
        self._stalled = writes and not done
        return done

    def finish(self) -> None:
        """Do the same at the end of the process, and then drop and count what is left.

        Otherwise a reader that is slow, not stalled, would miss lines at the end, and nothing would say so.
        """
        if self.flush(FLUSH_WITHIN) or self._thread is None:
            return
        with self._lock:
            left = list(self._queue)
            self._queue.clear()
            self._size = 0
            self._lose(left)
            self._stalled = False
        for waiting in left:
            if waiting.written is not None:
                waiting.written.set()
        self.flush(COUNT_WITHIN)

    def write_without_thread(self) -> None:
        """Write what waits here if no thread could be started to do so; blocks for as long as the stream does."""
        while self._thread is None and (batch := self._take()):
            self._write_batch(batch)

    def _begin_empty(self) -> None:
        # Reentrant: a signal handler or a finalizer may log while its thread holds the lock.
        self._lock = threading.RLock()
        self._queue: deque[_Waiting] = deque()
        self._later: list[tuple[float, Line]] = []
        self._status = self._shown_status = ""
        self._size = self._dropped = self._told = 0
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._awake = False
        self._stalled = False
        self._thread: threading.Thread | None = None

    def _report_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._told += dropped
            self._queue.append(_Waiting(lambda: self.note(dropped), 0, dropped))

    def _wake(self) -> bool:
        """Wake the thread, started if necessary; return False if there is none."""
        if self._thread is None and not self._start_thread():
            return False
        if not self._awake:
            self._awake = True
            self._wakes.put(None)
        return True

    def _start_thread(self) -> bool:
        self._thread = threading.Thread(target=self._run, name="whereby-trigger-log", daemon=True)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            # The system has no thread left. The lines wait, and the next one tries again.
            self._thread = None
            return False
        return True

    def _run(self) -> None:
        keep_running(self._write_due)

    def _write_due(self) -> bool:
        if not self._awake:
            with suppress(Empty):
                self._wakes.get(timeout=self._until_due())
        with self._lock:
            self._queue_due(time.monotonic())
        while batch := self._take():
            try:
                self._write_batch(batch)
            except Exception:
                # Such as a lack of memory.
                with self._lock:
                    self._lose(batch)
            for waiting in batch:
                if waiting.written is not None:
                    waiting.written.set()
        return True

    def _until_due(self) -> float | None:
        with self._lock:
            due = min((due for due, _ in self._later), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _queue_due(self, now: float) -> None:
        if self._later:
            due_now = [_Waiting(line, 1, 1) for due, line in self._later if due <= now]
            self._queue.extend(due_now)
            self._size += len(due_now)
            self._later = [(due, line) for due, line in self._later if due > now]

    def _take(self) -> list[_Waiting]:
        """Return the next lines, as many as fit in one piece; the thread goes to sleep if there are none."""
        batch: list[_Waiting] = []
        size, whole = 0, self._whole
        with self._lock:
            while self._queue and (not batch or size + self._queue[0].size <= whole):
                waiting = self._queue.popleft()
                size += waiting.size
                batch.append(waiting)
            self._size -= size
            self._awake = bool(batch)
        return batch

    @property
    def _whole(self) -> int:
        """How many bytes are written in one piece: each write costs the thread its turn."""
        descriptor = _descriptor_of(self.stream)
        with suppress(OSError):
            if descriptor is not None and stat.S_ISREG(os.fstat(descriptor).st_mode):
                return WHOLE_IN_FILE
        return WHOLE

    def _write_batch(self, batch: list[_Waiting]) -> None:
        lost: list[_Waiting] = []
        written = False
        pieces = self._pieces(batch)
        if self._shown_status:
            pieces.insert(0, (CLEAR, []))
        self._shown_status = self._status
        if self._shown_status:
            pieces.append((self._encoded(self._shown_status), []))
        for piece, lines in pieces:
            try:
                self._write(piece)
                written = True
            except Exception:
                lost += lines
        with self._lock:
            self._lose(lost)
            if written:
                self._stalled = False
            if written and not lost and not self._queue:
                # No further line may ever come that would report those that were dropped.
                self._report_dropped()

    def _lose(self, lost: Collection[_Waiting]) -> None:
        self._dropped += sum(waiting.stands_for for waiting in lost)
        # A report that is lost itself has told nobody.
        self._told -= sum(waiting.stands_for for waiting in lost if waiting.reports)

    def _pieces(self, batch: list[_Waiting]) -> list[tuple[bytes, list[_Waiting]]]:
        """Return the lines as bytes, joined as far as they fit in one piece, each piece with its lines."""
        pieces: list[tuple[list[bytes], list[_Waiting]]] = []
        space, whole = 0, self._whole
        for waiting in batch:
            try:
                data = self._encoded(waiting.line)
            except Exception:
                with self._lock:
                    self._lose([waiting])
                continue
            if len(data) > space or not pieces:
                pieces.append(([], []))
                space = whole
            encoded, lines = pieces[-1]
            encoded.append(data)
            lines.append(waiting)
            space -= len(data)
        return [(b"".join(encoded), lines) for encoded, lines in pieces]

    def _encoded(self, line: Line) -> bytes:
        text = line if isinstance(line, str) else line()
        return text.encode(getattr(self.stream, "encoding", None) or "utf-8", "backslashreplace")

    def _write(self, data: bytes) -> None:
        if not data:
            return
        descriptor = _descriptor_of(self.stream)
        if descriptor is None:
            if self.stream is None:
                raise OSError("there is no standard error")
            self.stream.write(data.decode(getattr(self.stream, "encoding", None) or "utf-8"))
            self.stream.flush()
            return
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                # A program that shares the descriptor made it non-blocking.
                _await_writable(descriptor, None)

    def _forked(self) -> None:
        """Start over in a forked child, which has none of our threads, no event loop, and may exit without notice."""
        self._begin_empty()
        self._direct = True

    def _write_at_once(self, line: Line) -> None:
        descriptor = _descriptor_of(self.stream)
        with suppress(Exception):
            if descriptor is None or _await_writable(descriptor, FLUSH_WITHIN):
                self._write(self._encoded(line))


class StandardError(io.TextIOBase):
    """Replace `sys.stderr`: writing never blocks, and the lines of several threads do not mix."""

    def __init__(self, writer: LineWriter, stream: TextIO) -> None:
        self.writer = writer
        self._stream = stream
        self._begun: dict[int, str] = {}

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread = threading.get_ident()
        whole, newline, rest = (self._begun.pop(thread, "") + text).rpartition("\n")
        if newline:
            self.writer.put(whole + newline, len(whole) + 1)
        if rest:
            self._begun[thread] = rest
        if len(rest) > WHOLE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Queue this thread's unfinished line, without waiting until it is written."""
        if begun := self._begun.pop(threading.get_ident(), ""):
            self.writer.put(begun, len(begun))

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def buffer(self) -> Any:
        return self._stream.buffer

    def __getattr__(self, name: str) -> Any:
        """Return what else the stream has, such as its name, or how it is reconfigured."""
        if name == "_stream":
            raise AttributeError(name)
        return getattr(self._stream, name)

    def close(self) -> None:
        """Queue this thread's unfinished line; the stream stays open, since it belongs to the interpreter."""
        self.flush()


_writers: dict[int, LineWriter] = {}
"""The writers of this process, by the `id` of the stream that each of them holds. They live as long as the process."""


def writer_of(stream: TextIO | None) -> LineWriter:
    """Return the one writer of a stream: two threads that write to it would mix their lines."""
    if isinstance(stream, StandardError):
        return stream.writer
    if id(stream) not in _writers:
        _writers[id(stream)] = LineWriter(stream)
    return _writers[id(stream)]


@contextmanager
def never_awaited(to_the_end: bool) -> Iterator[None]:
    """Make `sys.stderr` non-blocking for a `with` block, or until the process ends with `to_the_end`.

    Warnings, tracebacks and the output of unconfigured logging then cannot block the event loop either.
    """
    before = sys.stderr
    writer = writer_of(before)
    writer.have_thread()
    theirs = before is not sys.__stderr__
    if before is None or theirs:
        # Somebody has replaced the stream: leave it as it is.
        yield
        return
    ours = sys.stderr = StandardError(writer, before)
    if to_the_end:
        atexit.register(writer.finish)
    try:
        yield
    finally:
        if not to_the_end:
            ours.flush()
            writer.flush()
            if sys.stderr is ours:
                sys.stderr = before


def lines_dropped() -> int:
    """Return how many lines of this process were dropped so far because nobody read them."""
    return sum(writer.dropped_in_all for writer in list(_writers.values()))


def say_last(text: str, raised: str = "") -> None:
    """Write a last text and a traceback after the lines that wait, and wait for it at most FLUSH_WITHIN seconds.

    Blocks for longer if this thread must write it, since no other can be started.
    """
    writer = writer_of(sys.stderr)
    writer.show_status("")
    last = writer.last(text, raised)
    writer.put(last, len(last))
    writer.flush()
    writer.write_without_thread()


def fill_closed_descriptors() -> None:
    """Open the null device in place of each standard stream that was closed before the start.

    Otherwise the next socket or file gets its number, and with it what a library or a child prints there.
    """
    for descriptor in DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            # This is the lowest free number, so that open() uses it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Not at its own number, which a file of the program may have by now.
            null = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(null, "w", encoding="utf-8", errors="backslashreplace"))


def _note(dropped: int) -> str:
    return f"whereby-trigger: {in_words(dropped)}\n"


def _last(text: str, raised: str) -> str:
    return f"{raised}whereby-trigger: {text}\n"


def in_words(dropped: int) -> str:
    """Return a sentence that says how many lines were dropped, and why."""
    lines = "1 log line was" if dropped == 1 else f"{dropped} log lines were"
    return f"{lines} dropped: the reader of standard error is slow, stalled or gone"


def _descriptor_of(stream: TextIO | None) -> int | None:
    # Another kind of stream may do more than write. On Windows a console takes text, not bytes of UTF-8.
    if type(stream) is not io.TextIOWrapper or sys.platform == "win32":
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _await_writable(descriptor: int, within: float | None) -> bool:
    """Wait at most `within` seconds until a descriptor is writable; return True if it is."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if within is None else within * 1000))
