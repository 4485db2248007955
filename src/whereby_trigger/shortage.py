"""Recognise a shortage of threads, files or memory, which is no fault of the work that fails."""

import errno
import mmap
import os
import threading
from typing import Final

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
