"""What a process runs out of through no fault of the work that fails: threads, files, memory."""

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
"""By error number. Source: Linux man pages, pipe(2), fork(2), open(2), mmap(2)."""

NO_THREAD: Final = "can't start new thread"
"""What CPython's RuntimeError says, which has no class of its own."""

TRIED: Final = 16 * 1024 * 1024
"""Bytes that are asked for to find out whether there is memory: what a thread's stack and a page cache take."""


def shortage_of(error: BaseException | None) -> str | None:
    """Say what there is none left of if an error says so; None if it is about anything else."""
    if isinstance(error, MemoryError):
        return MEMORY
    if type(error) is RuntimeError and [part for part in error.args if type(part) is str and NO_THREAD in part]:
        return THREADS
    return ERRORS.get(error.errno or 0) if isinstance(error, OSError) else None


def shortage_now(error: BaseException | None) -> str | None:
    """Do the same for an error of user code, which may mean its own limits: only if we can have none of it either."""
    try:
        short = shortage_of(error)
    except BaseException:
        # An exception may have been written so that it raises another when it is looked at.
        return None
    return short if short is not None and is_short(short) else None


def named_in(text: str) -> str | None:
    """Say what there is none left of if the words of a program that ended say so."""
    return next((short for number, short in ERRORS.items() if os.strerror(number) in text), None)


def is_short(short: str) -> bool:
    """Return whether this process can have none of it now."""
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
