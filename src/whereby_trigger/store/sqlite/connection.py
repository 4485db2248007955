"""Open the SQLite file that a URL names, with commits synced to disk, or say why it cannot be used."""

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from whereby_trigger.errors import ConfigError, StoreError, StoreUnavailable
from whereby_trigger.threads import FILES, is_short, shortage_of

SCHEME = "sqlite:///"
BUSY_TIMEOUT = 5.0
OLDEST_SQLITE = (3, 35, 0)

JOURNAL_KEPT = 64 * 1024 * 1024
"""Size in bytes to which the journal is cut when it was emptied."""

TWO_NAMES = (
    "each name has a journal of its own, and what is written under one is lost under the other; "
    "remove the other name (`find / -xdev -samefile` lists them), and back up with SQLite's own backup"
)


def path_of(url: str, called: str = "store") -> Path:
    """Return the absolute path in `sqlite:///relative.db` or `sqlite:////absolute.db`.

    `called` names the file in errors. Raises ConfigError for another scheme, for a store in memory, and for options,
    which could only weaken what a 200 promises.
    """
    if not url.startswith(SCHEME):
        raise ConfigError(f"{called} {url!r} is no SQLite URL: write sqlite:///file.db, with four slashes if absolute")
    name = unquote(url.removeprefix(SCHEME))
    if "?" in url:
        raise ConfigError(f"{called} {url!r} has options after '?': there are none, every commit is synced to disk")
    if not name or name == ":memory:" or "\0" in name:
        raise ConfigError(f"{called} {url!r} names no file: webhooks must outlive the process, write sqlite:///file.db")
    try:
        # Every symbolic link must lead to the same files beside it, which show who lives and who may write.
        return Path(os.path.realpath(Path(name).expanduser()))
    except RuntimeError:
        raise ConfigError(f"{called} {url!r} begins with '~', but there is no such user with a home") from None


def create(path: Path, called: str = "store", *, synced: bool = True) -> None:
    """Create an empty database file, readable by its owner only, if there is none, and sync its folder.

    Raises StoreError if it cannot be created or written.
    """
    try:
        if path.is_dir():
            raise StoreError(f"the {called} {path} is a folder: name a file in it")
        if not path.parent.is_dir():
            raise StoreError(
                f"the {called}'s folder {path.parent} does not exist: create it, or set {called}= to another place"
            )
        # An existing file is not even opened: closing it would release the locks that this process has on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if synced:
            _sync_folder(path.parent)
    except OSError as error:
        raise not_writable(path, error, called) from error
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StoreError(
            f"the {called} {path} is read-only, or its folder is: both must be writable, "
            "the journal is stored beside the file"
        )


def connect(path: Path, *, readonly: bool = False, called: str = "store") -> sqlite3.Connection:
    """Open an existing database without changing it; raises StoreError if that fails."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: Python must be linked to 3.35 or newer")
    _check_one_name(path, called)
    return connect_again(path, readonly=readonly, called=called)


def connect_again(path: Path, *, readonly: bool = False, called: str = "store") -> sqlite3.Connection:
    """Do the same with a database that `connect` has just opened."""
    try:
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise opening_failed(path, error, called) from error
    connection.execute("PRAGMA query_only = 1" if readonly else "PRAGMA query_only = 0")
    return connection


def make_durable(connection: sqlite3.Connection, path: Path, called: str = "store", *, synced: bool = True) -> None:
    """Make commits return only once they are on disk; raises StoreError if the file would not be synced.

    Without `synced`, which is for tests, commits return once the system has them.
    """
    # What is deleted or replaced is overwritten, also in pages that are free from then on.
    connection.execute("PRAGMA secure_delete = ON").close()
    if not synced:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
        return
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = 1")
    connection.execute("PRAGMA checkpoint_fullfsync = 1")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_KEPT}")
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    if synchronous < 2:
        raise StoreError(f"the {called} {path} does not sync its commits (synchronous={synchronous}): not safe to use")
    if journal != "wal":
        raise StoreError(
            f"the {called} {path} cannot use a write-ahead log (journal mode {journal}): "
            "put it on a local disk, network file systems do not work"
        )


class Identity:
    """Remember which file was opened, to notice if it is removed: later commits to it would be lost."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._opened = os.stat(path)

    def check(self) -> None:
        """Raise OSError if the file was deleted, moved or replaced, or was given a second name."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self._path} was deleted or moved while it was in use: {_PUT_BACK}") from None
        if not os.path.samestat(self._opened, there):
            raise FileExistsError(f"{self._path} was replaced while it was in use: {_PUT_BACK}")
        if there.st_nlink > 1:
            raise FileExistsError(f"{self._path} has a second name, a hard link: {TWO_NAMES}")

    def holds(self) -> bool:
        """Return whether the file is still the one that was opened, under this name alone."""
        try:
            self.check()
        except OSError:
            return False
        return True


_PUT_BACK = "put it back, or restart to continue with what is there now"


def opening_failed(path: Path, error: sqlite3.Error, called: str = "store") -> StoreError:
    """Return an error that says why a database cannot be opened, and what to do."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return held_locked(path, called)
    if "not a database" in text or "malformed" in text:
        return StoreError(
            f"the {called} {path} is damaged or is no SQLite file ({text}): move it away and start with a new one, "
            "or restore it from a backup"
        )
    if "readonly" in text:
        return StoreError(f"the {called} {path} is read-only: make the file and its folder writable")
    if "unable to open" in text and not os.path.exists(path):
        return StoreError(f"there is no {called} at {path}: start the trigger once, or name another with --{called}")
    if "unable to open" in text and is_short(FILES):
        return StoreUnavailable(f"the {called} {path} cannot be opened now: out of {FILES}")
    return StoreError(f"the {called} {path} cannot be used: {text}")


@contextlib.contextmanager
def shortage_in_words(path: Path, called: str = "store") -> Iterator[None]:
    """Raise StoreUnavailable instead of an error that means the process is out of threads, files or memory."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if (short := shortage_of(error)) is None:
            raise
        raise StoreUnavailable(f"the {called} {path} cannot be opened now: out of {short}") from error


def not_writable(path: Path, error: OSError, called: str = "store") -> StoreError:
    if (short := shortage_of(error)) is not None:
        return StoreUnavailable(f"the {called} {path} cannot be opened now: out of {short}")
    return StoreError(f"the {called} {path} cannot be written: {error.strerror}; check who owns it")


def held_locked(path: Path, called: str = "store") -> StoreError:
    return StoreUnavailable(
        f"the {called} {path} was locked by another program for more than {BUSY_TIMEOUT:g} s: "
        "close what has it open (a database browser, a backup), then start again"
    )


def _check_one_name(path: Path, called: str) -> None:
    """Raise StoreError if the file has a second name, which would have a journal of its own."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_nlink > 1:
            raise StoreError(f"the {called} {path} has a second name, a hard link: {TWO_NAMES}")
    if _is_mounted_alone(path):
        raise StoreError(
            f"the {called} {path} is mounted as a single file: its journal would not be stored beside it, "
            "and would be lost with the container; mount the folder that it is in"
        )


def _is_mounted_alone(path: Path) -> bool:
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    # Source: proc_pid_mountinfo(5): the fifth field, with blanks and backslashes in octal.
    name = re.sub(rb"[ \t\n\\\\]", lambda found: b"\\%03o" % ord(found[0]), os.fsencode(path))
    return any(mount.split(b" ", 5)[4:5] == [name] for mount in mounts.splitlines())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
