"""A real PgBouncer in front of a server of the tests: it lends connections for a transaction only."""

import atexit
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from reliability.tools import ToolMissing
from tests.support.place import Place
from tests.support.postgres import HOST, SUPERUSER, Server, free_port, hand_over, not_as_root, shared_server
from tests.support.postgres_place import postgres_place
from tests.support.watch import Watch

WITHIN = 10.0
LOOK = 0.01
PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"

SETTINGS = """\
[databases]
* = host={host} port={database_port}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
server_login_retry = 1
"""
"""Few server connections, so clients that share them seldom get the same one again."""


def program() -> str:
    """Return the path of PgBouncer; raises ToolMissing."""
    found = shutil.which("pgbouncer", path=PATHS)
    if found is None:
        raise ToolMissing("PgBouncer is not installed: this needs Debian's package pgbouncer")
    return found


class PgBouncer:
    """Run a PgBouncer in transaction mode before a server; a context. Raises ToolMissing if it is not installed."""

    def __init__(self, server: Server) -> None:
        found = program()
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="whereby-trigger-pgbouncer-"))
        as_whom = not_as_root(self._folder)
        settings = SETTINGS.format(host=HOST, port=self.port, database_port=server.port, folder=self._folder)
        (self._folder / "settings").write_text(settings, encoding="ascii")
        (self._folder / "users").write_text(f'"{SUPERUSER}" "{server.password}"\n', encoding="ascii")
        hand_over(self._folder)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [found, self._folder / "settings"],
                **as_whom,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watch = Watch(self._process.pid, self._folder)

    def through(self, url: str) -> str:
        """Return the URL of a server's database through it."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{self.port}").geturl()

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        deadline = time.monotonic() + WITHIN
        while self._process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as attempt, suppress(OSError):
                attempt.connect((HOST, self.port))
                return
            time.sleep(LOOK)
        said = (self._folder / "log").read_text(errors="replace")
        self.close()
        raise AssertionError(f"PgBouncer does not start; it says:\n{said}")

    def close(self) -> None:
        """Kill it and remove everything it wrote."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(WITHIN)
        self._watch.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "PgBouncer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pgbouncer_place(folder: Path) -> AbstractContextManager[Place]:
    """Create a database for one test, which replicas reach through the PgBouncer of this process."""
    return postgres_place(folder, _shared_bouncer().through)


@cache
def _shared_bouncer() -> PgBouncer:
    bouncer = PgBouncer(shared_server())
    atexit.register(bouncer.close)
    bouncer.start()
    return bouncer
