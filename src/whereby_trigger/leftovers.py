"""Find and kill processes of an assistant's run that have outlived their guard, by a mark in their environment.

A guard marks what it starts with the variable `MARK`. All descendants inherit it, also in a session of their own.
Linux shows the environment of a process to its own user and to root. Elsewhere, and without /proc, nothing is found.
"""

import asyncio
import contextlib
import errno
import math
import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from whereby_trigger.loggers import own_logger
from whereby_trigger.threads import in_thread

logger = own_logger("whereby_trigger.assist")

MARK: Final = "WHEREBY_ASSISTANT_RUN"
"""The variable that guard.py sets to `RUN:GUARD:NAMESPACE`: the run's name, the guard's process id, its namespace."""

PATIENCE: Final = 0.5
"""Seconds to wait for killed processes: they no longer run their code, but may take time to disappear."""

NUMBER: Final = re.compile("[0-9]{1,10}")
LOOK: Final = 0.01
HELD_UP: Final = 0.25
"""Seconds of inspection after which other threads skip a process."""

UNSEEN: Final = "inspecting a process hangs, as `ps` does"

SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that say nothing about a process, only that we cannot look now."""

EVERY: Final = 5.0
"""Seconds between two searches for processes that have no guard."""


class Mark(NamedTuple):
    """Hold the run that a process belongs to and its guard's process id."""

    run: str
    guard: int


def name_of_run(replica: str | None, room: int, attempt: int) -> str:
    """Return the unique name of a run, which begins with its replica's id."""
    return f"{replica}-{room}-{attempt}"


def sweep(whose: Collection[str] = ()) -> Iterator[str]:
    """Kill processes without a guard, and all processes of `whose`, runs or replicas; yield the run of each.

    A killed process that is not gone yet is found again by the next sweep. A guard that cannot be inspected, or is in
    another process namespace, counts as alive. Raises OSError if there are no files or memory left to look.

    Call it in a thread of its own: the kernel may block every attempt to inspect a process, as it blocks `ps`.
    """
    namespace = _namespace()
    if namespace is None:
        return
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and (run := _looked_at(int(entry), whose, namespace)):
            yield run


async def end(whose: Collection[str]) -> bool:
    """Kill all that is left of runs or replicas; return True if it is gone within about `PATIENCE` seconds."""
    try:
        async with asyncio.timeout(PATIENCE + HELD_UP):
            return await in_thread(_Search(whose).run)
    except TimeoutError:
        why = UNSEEN
    except (RuntimeError, MemoryError) as error:
        why = str(error)
    _warn_unseen(whose, why)
    return False


async def keep_clean() -> None:
    """Kill processes without a guard, of any replica, every `EVERY` seconds until cancelled."""
    while True:
        with contextlib.suppress(OSError, RuntimeError, MemoryError):
            async with asyncio.timeout(EVERY):
                for run in await in_thread(lambda: set(sweep())):
                    logger.warning(
                        "killed the remaining processes of the assistant's run %s: its guard was killed", run
                    )
        await asyncio.sleep(EVERY)


class _Search:
    """Search for what is left of runs or replicas until nothing is left, or it takes too long."""

    def __init__(self, whose: Collection[str]) -> None:
        self._whose = whose
        self._give_up = time.monotonic() + PATIENCE
        self._killed = 0
        self._left = 0
        self._why_unseen: str | None = None

    def run(self) -> bool:
        """Kill what is left and log what was found; return True if nothing is left."""
        while not self._look() and time.monotonic() < self._give_up:
            time.sleep(LOOK)
        names = ", ".join(sorted(self._whose))
        if self._why_unseen is not None:
            _warn_unseen(self._whose, self._why_unseen)
        elif self._left:
            logger.warning("%d processes of the assistants of %s were killed but are still there", self._left, names)
        elif self._killed:
            logger.warning("killed %d remaining processes of the assistants of %s", self._killed, names)
        return self._why_unseen is None and self._left == 0

    def _look(self) -> bool:
        try:
            self._left = sum(_is_of(run, self._whose) for run in sweep(self._whose))
            # A process that another thread is still inspecting may belong to these runs.
            self._why_unseen = UNSEEN if any(map(_is_held_up, list(_being_looked_at))) else None
        except OSError as error:
            self._why_unseen = error.strerror or "no files or memory"
        self._killed = max(self._killed, self._left)
        return self._why_unseen is None and self._left == 0


def _warn_unseen(whose: Collection[str], why: str) -> None:
    names = ", ".join(sorted(whose))
    logger.warning("cannot look for remaining processes of the assistants of %s: %s", names, why)


_being_looked_at: dict[int, float] = {}
"""The processes that a thread is inspecting, each with the time at which it began."""


def _is_held_up(pid: int) -> bool:
    return time.monotonic() - _being_looked_at.get(pid, math.inf) > HELD_UP


def _looked_at(pid: int, whose: Collection[str], namespace: str) -> str | None:
    """Kill a process if it has no guard or belongs to `whose`; return its run if so.

    A process whose inspection blocks another thread is skipped.
    """
    if _is_held_up(pid):
        return None
    _being_looked_at[pid] = time.monotonic()
    try:
        mark = _mark_of(pid, namespace)
        if mark is None or not (_is_of(mark.run, whose) or not _guard_lives(mark)):
            return None
        return mark.run if _kill(pid, mark, namespace) else None
    finally:
        _being_looked_at.pop(pid, None)


def _is_of(run: str, whose: Iterable[str]) -> bool:
    return any(f"{run}-".startswith(f"{one}-") for one in whose)


def _namespace() -> str | None:
    """Return the number of our process namespace; None if /proc shows another one, or no processes."""
    if sys.platform != "linux":
        return None
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        return None


def _mark_of(pid: int, namespace: str) -> Mark | None:
    """Return a process's mark; None if it has none, is gone or dead, or may not be inspected."""
    variables = b"\0" + (_read(f"/proc/{pid}/environ") or b"")
    value = variables.partition(f"\0{MARK}=".encode())[2].partition(b"\0")[0]
    run, _, rest = value.decode(errors="replace").partition(":")
    guard, _, theirs = rest.partition(":")
    return Mark(run, int(guard)) if theirs == namespace and NUMBER.fullmatch(guard) else None


def _guard_lives(mark: Mark) -> bool:
    """Return False if no process has the guard's id, or one that is certainly not the guard of this run."""
    try:
        os.kill(mark.guard, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    # It is empty for a zombie, and may be hidden for another user's process.
    arguments = _read(f"/proc/{mark.guard}/cmdline")
    return arguments is None or mark.run.encode() in arguments.split(b"\0")


def _kill(pid: int, mark: Mark, namespace: str) -> bool:
    """Kill a process, unless its id was reused meanwhile; return False if it is gone."""
    descriptor = _pidfd(pid)
    try:
        if _mark_of(pid, namespace) != mark:
            return False
        if descriptor is not None:
            with contextlib.suppress(PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def _pidfd(pid: int) -> int | None:
    """Return a descriptor of a process, which stays valid if its id is reused; None if the system has no such thing."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        return None


def _read(path: str) -> bytes | None:
    """Return the whole content of a file in /proc; None if its process is gone or may not be inspected."""
    try:
        with open(path, "rb", buffering=0) as file:
            return b"".join(iter(lambda: file.read(65536), b""))
    except OSError as error:
        if error.errno in SCARCE:
            raise
        return None
