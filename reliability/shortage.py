"""A program under test that is out of threads, files or memory from SIGUSR1 to SIGUSR2."""

import os
import resource
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

KINDS = ("files", "threads", "memory")
NEEDED = 64 * 1024 * 1024
"""Bytes that cannot be allocated while the process is out of memory."""

LEFT = 4 * 1024 * 1024
"""Bytes left then: enough for the interpreter's own small objects, too few for a thread's stack."""


def bear_it(what: str) -> None:
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
