"""Conditions that a program under test brings upon itself: a shortage, a wrong clock, a SQLite that is not safe.

A shortage, of threads, files or memory, lasts from SIGUSR1 to SIGUSR2. A wrong clock is the work of libfaketime, which
changes the time of day of some programs; the monotonic and the boot clock stay as they are, as they do when a machine's
time is set. Our code must refuse a SQLite that would not keep what it acknowledged.
"""

import functools
import os
import resource
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

from reliability.tools import ToolMissing

MUTANT = "RELIABILITY_MUTANT"
"""The environment variable that names a mutation of a process; `mutants` has them."""

RESOURCES = ("files", "threads", "memory")
NEEDED = 64 * 1024 * 1024
"""Bytes that cannot be allocated while the process is out of memory."""

LEFT = 4 * 1024 * 1024
"""Bytes left then: enough for the interpreter's own small objects, too few for a thread's stack."""

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")
OFFSET_FILE = "FAKETIME_TIMESTAMP_FILE"


def bear_shortage(what: str) -> None:
    """Make this process run out of a resource by signal, and print `short` or `plenty` once that is done."""
    limit = {"files": resource.RLIMIT_NOFILE, "memory": resource.RLIMIT_AS}.get(what)
    plenty = (0, 0) if limit is None else resource.getrlimit(limit)
    start_thread, start_process = threading.Thread.start, subprocess.Popen.__init__

    def run_out(*_: object) -> None:
        if limit is None:
            # Tests may run as root, which is not bound by RLIMIT_NPROC.
            _replace(_no_thread, _no_process)
        else:
            resource.setrlimit(limit, (0 if what == "files" else _in_use() + LEFT, plenty[1]))
        print("short", flush=True)

    def have_plenty(*_: object) -> None:
        if limit is None:
            _replace(start_thread, start_process)
        else:
            resource.setrlimit(limit, plenty)
        print("plenty", flush=True)

    signal.signal(signal.SIGUSR1, run_out)
    signal.signal(signal.SIGUSR2, have_plenty)


def need(what: str) -> None:
    """Use a resource as user code does; raises what Python raises if there is none."""
    if what == "files":
        os.close(os.open(os.devnull, os.O_RDONLY))
    elif what == "threads":
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    else:
        bytearray(NEEDED)


def _in_use() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _replace(start_thread: Any, start_process: Any) -> None:
    threading.Thread.start, subprocess.Popen.__init__ = start_thread, start_process  # type: ignore[method-assign]


def _no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def _no_process(*_: object, **__: object) -> None:
    raise BlockingIOError(11, "Resource temporarily unavailable")


class Skew:
    """Set the clock of every program in its environment off by some seconds; raises ToolMissing."""

    def __init__(self, folder: Path) -> None:
        self._library = _library()
        self._file = folder / "offset"
        self.seconds = 0.0
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that give a program this clock.

        Source: libfaketime's README: a file that is read at each call lets the offset change in mid-run.
        """
        return {
            "LD_PRELOAD": str(self._library),
            OFFSET_FILE: str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Set the clock off by this many seconds from now on."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(f"{seconds:+g}", encoding="ascii")
        fresh.rename(self._file)
        self.seconds = seconds


def bear_skew() -> None:
    """Keep a skewed program able to sleep: libfaketime 0.9.10 breaks the call that Python uses."""
    if OFFSET_FILE in os.environ:
        time.sleep = _sleep


def _sleep(seconds: SupportsIndex | float, /) -> None:
    threading.Event().wait(float(seconds))


def _library() -> Path:
    for pattern in LIBRARIES:
        for found in sorted(Path("/").glob(pattern.lstrip("/"))):
            return found
    raise ToolMissing("libfaketime is not installed: this row puts clocks off with it (Debian's package faketime)")


def without_shared_memory() -> None:
    """Simulate a file system without shared memory, such as network file systems: it cannot have a write-ahead log."""
    original = sqlite3.connect

    def connect(database: str, **keywords: Any) -> Any:
        return original(f"{database}&vfs=unix-dotfile", **keywords)

    sqlite3.connect = connect  # type: ignore[assignment]


def without_full_sync() -> None:
    """Simulate a SQLite build that stays at synchronous=NORMAL, whatever it is asked for."""

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(sql.replace("synchronous = FULL", "synchronous = NORMAL"), *parameters)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]


UNSAFE: Mapping[str, Callable[[], None]] = {
    "without shared memory": without_shared_memory,
    "without full sync": without_full_sync,
}
