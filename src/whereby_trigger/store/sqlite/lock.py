"""File locks that the operating system releases when their holder dies."""

import os
import sys
import time
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from types import TracebackType

from whereby_trigger.store.sqlite.connection import Identity

if sys.platform == "win32":
    import msvcrt

    def _acquire(descriptor: int, *, wait: bool) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

    def _release(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _remove(path: Path, descriptor: int) -> None:
        # Windows cannot remove an open file.
        _close_file(descriptor)
        with suppress(OSError):
            path.unlink()

else:
    import fcntl

    def _acquire(descriptor: int, *, wait: bool) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))

    def _release(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _remove(path: Path, descriptor: int) -> None:
        with suppress(OSError):
            path.unlink()
        _close_file(descriptor)


if sys.platform == "linux":
    import struct

    def _mark_process(descriptor: int) -> bool:
        """Lock a file for this process alone; return False if another process has, or if there are no such locks.

        The lock belongs to the open file description, which nobody inherits, and is apart from that of `flock`.
        Source: fcntl(2), Open file description locks.
        """
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        except OSError:
            return False
        return True

else:

    def _mark_process(descriptor: int) -> bool:
        return False


OF_PROCESS = b" process"
"""What the file of a replica holds after its number if its process has a lock of its own."""

PATIENCE = 10
"""Milliseconds for which we try to lock a dead replica's file in order to remove it."""

_open: set[int] = set()


def _open_file(path: Path, flags: int = 0) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    _open.add(descriptor)
    return descriptor


def _close_file(descriptor: int) -> None:
    _open.discard(descriptor)
    os.close(descriptor)


def _close_all() -> None:
    # A forked child that lives on would keep its dead parent's locks: they last as long as any copy of the descriptor.
    for descriptor in list(_open):
        _close_file(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


class FileLock:
    """Lock a file among processes; `with lock:` waits until it is free."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _open_file(path)

    def acquire(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the lock; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return _acquire(self._descriptor, wait=False)
            except OSError:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                time.sleep(0.001)

    def release(self) -> None:
        _release(self._descriptor)

    def __enter__(self) -> None:
        _acquire(self._descriptor, wait=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def close(self) -> None:
        _close_file(self._descriptor)


class Turn(FileLock):
    """Lock a database for one writer at a time; raises OSError if it was removed or replaced (see `Identity`)."""

    def __init__(self, database: Path) -> None:
        super().__init__(database.with_name(f"{database.name}-lock"))
        self._identity = Identity(database)

    def __enter__(self) -> None:
        super().__enter__()
        try:
            self._identity.check()
        except OSError:
            self.release()
            raise


class Life(Enum):
    """Name what the file of a replica shows of it."""

    RUNS = auto()
    """Its process runs, as far as can be told."""

    GUARDED = auto()
    """Its process is dead; guards still end what its assistants have started."""

    DEAD = auto()
    """Its process is dead, and so are its guards."""

    UNKNOWN = auto()
    """It has no valid file: its lease decides."""


class LifeLock:
    """Show other processes that a replica lives: its file is locked while its process or one of its guards runs.

    The lock belongs to the open file, which guards inherit. The process has a second lock, which nobody inherits: it
    shows when the process alone has died. The file contains its own inode number: a file that somebody put in its
    place does not have it, and proves no death. What follows the number says that there is a second lock.
    """

    def __init__(self, database: Path, replica: str) -> None:
        self.path = life_file(database, replica)
        self.descriptor = _open_file(self.path, os.O_EXCL)
        self._process: int | None = None
        try:
            _acquire(self.descriptor, wait=False)
            self._process = _open_file(self.path)
            marked = _mark_process(self._process)
            os.write(self.descriptor, _number_of(self.descriptor) + (OF_PROCESS if marked else b""))
        except BaseException:
            self.close()
            raise

    @property
    def in_place(self) -> bool:
        """Return False if somebody removed or replaced the file; True if that cannot be told."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False
        except OSError:
            # Its folder cannot be entered, for example. Then the write that follows says so.
            return True

    def close(self) -> None:
        """Release the locks and remove the file, after this replica has given back what it owned."""
        self._release_process()
        _remove(self.path, self.descriptor)

    def die(self) -> None:
        """Release the locks and leave the file, which then shows that the replica is dead."""
        self._release_process()
        _close_file(self.descriptor)

    def _release_process(self) -> None:
        if self._process is not None:
            _close_file(self._process)
            self._process = None


def life_file(database: Path, replica: str) -> Path:
    return database.with_name(f"{database.name}-replica-{replica}")


def life_of(database: Path, replica: str) -> Life:
    """Return what a replica's file shows of it."""
    try:
        descriptor = os.open(life_file(database, replica), os.O_RDWR)
    except FileNotFoundError:
        return Life.UNKNOWN
    except OSError:
        return Life.RUNS
    try:
        written = os.read(descriptor, 64)
        valid = written.removesuffix(OF_PROCESS) == _number_of(descriptor)
        if _is_free(descriptor):
            return Life.DEAD if valid else Life.UNKNOWN
        gone = valid and written.endswith(OF_PROCESS) and _mark_process(descriptor)
        return Life.GUARDED if gone else Life.RUNS
    except OSError:
        return Life.RUNS
    finally:
        os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    try:
        _acquire(descriptor, wait=False)
    except OSError:
        return False
    return True


def remove_life_file(database: Path, replica: str) -> bool:
    """Remove a dead replica's file beside the database; return False if it is locked."""
    path = life_file(database, replica)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    for _ in range(PATIENCE):
        with suppress(OSError):
            _acquire(descriptor, wait=False)
            _remove(path, descriptor)
            return True
        # Most likely another replica is checking at this moment whether this one is dead.
        time.sleep(0.001)
    os.close(descriptor)
    return False


def _number_of(descriptor: int) -> bytes:
    return str(os.fstat(descriptor).st_ino).encode()
