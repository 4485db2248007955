"""What a run of an assistant left behind without its guard: found by a mark in its environment, and killed.

A guard marks what it starts with the variable `MARK`, which everything below inherits, also in a session of its own.
Linux shows the environment of a process to its own user and to root. Elsewhere, and without /proc, nothing is found.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from whereby_trigger.threads import in_thread

logger = logging.getLogger("whereby_trigger.assist")

MARK: Final = "WHEREBY_ASSISTANT_RUN"
"""The variable `RUN:GUARD:NAMESPACE` that guard.py sets: the run's name, the guard's process id, where that counts."""

PATIENCE: Final = 0.5
"""Seconds for which killed processes are waited for: they run no more code of theirs, but may take time to go."""

NUMBER: Final = re.compile("[0-9]{1,10}")
LOOK: Final = 0.01
HELD_UP: Final = 0.25
"""Seconds after which a process that is still being looked at is left out by others who look."""

UNSEEN: Final = "a process holds up whoever looks at it, as it does `ps`"

SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing of a process, only that we cannot look now."""

EVERY: Final = 5.0
"""Seconds between two searches for what no guard watches over."""


class Mark(NamedTuple):
    """Say which run a process belongs to, and which process is its guard."""

    run: str
    guard: int


def name_of_run(replica: str | None, room: int, attempt: int) -> str:
    """Return the name of a run, which no other run ever has and which begins with its replica's id."""
    return f"{replica}-{room}-{attempt}"


def sweep(whose: Collection[str] = ()) -> Iterator[str]:
    """Kill what runs without its guard, and all that is of `whose`, runs or replicas; yield the run of each.

    What is killed and not gone yet is found again by the next sweep. A guard that cannot be looked at, or that is of
    another process namespace, counts as alive. Raises OSError without files or memory to look.

    For a thread of its own: the kernel may let nobody look at a process, and hold up whoever tries, as it does `ps`.
    """
    namespace = _namespace()
    if namespace is None:
        return
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and (run := _looked_at(int(entry), whose, namespace)):
            yield run


async def end(whose: Collection[str]) -> bool:
    """Kill all that is left of runs or replicas; return whether it is gone, after about `PATIENCE` seconds at most."""
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
    """Kill, every few seconds until cancelled, what runs without its guard, whichever replica it was of."""
    while True:
        with contextlib.suppress(OSError, RuntimeError, MemoryError):
            async with asyncio.timeout(EVERY):
                for run in await in_thread(lambda: set(sweep())):
                    logger.warning("killed what was left of the assistant's run %s: its guard was killed", run)
        await asyncio.sleep(EVERY)


class _Search:
    """Look for what is left of runs or replicas until nothing is, or it takes too long."""

    def __init__(self, whose: Collection[str]) -> None:
        self._whose = whose
        self._give_up = time.monotonic() + PATIENCE
        self._killed = 0
        self._left = 0
        self._why_unseen: str | None = None

    def run(self) -> bool:
        """Return True if nothing is left, and say in the log what there was."""
        while not self._look() and time.monotonic() < self._give_up:
            time.sleep(LOOK)
        names = ", ".join(sorted(self._whose))
        if self._why_unseen is not None:
            _warn_unseen(self._whose, self._why_unseen)
        elif self._left:
            logger.warning("%d processes of the assistants of %s were killed and are still there", self._left, names)
        elif self._killed:
            logger.warning("killed %d processes that were left of the assistants of %s", self._killed, names)
        return self._why_unseen is None and self._left == 0

    def _look(self) -> bool:
        try:
            self._left = sum(_is_of(run, self._whose) for run in sweep(self._whose))
            # What another thread still looks at may be of these runs.
            self._why_unseen = UNSEEN if any(map(_is_held_up, list(_being_looked_at))) else None
        except OSError as error:
            self._why_unseen = error.strerror or "no files or memory"
        self._killed = max(self._killed, self._left)
        return self._why_unseen is None and self._left == 0


def _warn_unseen(whose: Collection[str], why: str) -> None:
    logger.warning("cannot look for what is left of the assistants of %s: %s", ", ".join(sorted(whose)), why)


_being_looked_at: dict[int, float] = {}
"""The processes that some thread looks at, each with the time when it began."""


def _is_held_up(pid: int) -> bool:
    return time.monotonic() - _being_looked_at.get(pid, math.inf) > HELD_UP


def _looked_at(pid: int, whose: Collection[str], namespace: str) -> str | None:
    """Kill a process if it is to be killed; return its run then. One that has held up another thread is left out."""
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
    """Return the number of our process namespace; None if /proc shows another, or no processes at all."""
    if sys.platform != "linux":
        return None
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    except OSError:
        return None


def _mark_of(pid: int, namespace: str) -> Mark | None:
    """Read a process's mark; None without one, and for a process that is gone, dead, or not ours to look at."""
    variables = b"\0" + (_read(f"/proc/{pid}/environ") or b"")
    value = variables.partition(f"\0{MARK}=".encode())[2].partition(b"\0")[0]
    run, _, rest = value.decode(errors="replace").partition(":")
    guard, _, theirs = rest.partition(":")
    return Mark(run, int(guard)) if theirs == namespace and NUMBER.fullmatch(guard) else None


def _guard_lives(mark: Mark) -> bool:
    """Return False if no process has the guard's number, or one that is surely no guard of this run."""
    try:
        os.kill(mark.guard, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    # A zombie's is empty. Another user's process may be hidden from us.
    arguments = _read(f"/proc/{mark.guard}/cmdline")
    return arguments is None or mark.run.encode() in arguments.split(b"\0")


def _kill(pid: int, mark: Mark, namespace: str) -> bool:
    """Kill a process, unless its number is another's by now; return False if it is not there any more."""
    descriptor = _held(pid)
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


def _held(pid: int) -> int | None:
    """Hold a process by a descriptor, which is no other's whoever gets its number; None if the system has none."""
    try:
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        return None


def _read(path: str) -> bytes | None:
    """Read a file of /proc whole; None if its process is gone or not ours to look at."""
    try:
        with open(path, "rb", buffering=0) as file:
            return b"".join(iter(lambda: file.read(65536), b""))
    except OSError as error:
        if error.errno in SCARCE:
            raise
        return None
