"""The servers of the demo: programs in processes of their own, the store they use, and deliveries to them."""

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from whereby_trigger.config import foreign_environment
from whereby_trigger.errors import LifecycleError, StoreError
from whereby_trigger.store import Query
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.webhook import SIGNATURE_HEADER, sign

ADDRESS = re.compile(r"http://127\.0\.0\.1:([0-9]+)/")
START_WITHIN = 20.0
STOP_WITHIN = 10.0
ANSWER_WITHIN = 5.0
NO_ANSWER = 0

LEASE = 6.0
"""Seconds for which a silent replica counts as alive: short, because the demo waits for it after a kill."""

TAKEOVER_BY_LOCK = 2.0
"""Seconds a takeover may last on a SQLite file: the lock of a dead process is free at once."""

TAKEOVER_MARGIN = 1.0
"""Seconds a takeover may last after the dead replica's lease has expired."""


class KillableDatabase(Protocol):
    """Be a database that the demo may kill in mid-meeting, and start again."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class DemoStore(Struct, frozen=True):
    """Hold the URL of the store to use, None for a new file, and the database that may be killed, if any."""

    url: str | None = None
    database: KillableDatabase | None = None

    def url_in(self, folder: Path) -> str:
        """Return the URL of the store for a scenario that runs in this folder."""
        return self.url or f"sqlite:///{quote(str(folder / 'demo.db'))}"

    @property
    def is_shared(self) -> bool:
        """True if the store is a database server: there, only an expired lease shows that a replica died."""
        return self.url is not None and not self.url.startswith("sqlite:")

    @property
    def settings(self) -> dict[str, str]:
        """The environment variables that a replica needs besides the store's."""
        return {"WHEREBY_TRIGGER_LEASE_TTL": str(LEASE)} if self.is_shared else {}

    @property
    def takeover_within(self) -> float:
        """Seconds within which another replica must take over the rooms of a killed one."""
        return LEASE + TAKEOVER_MARGIN if self.is_shared else TAKEOVER_BY_LOCK


async def demo_store_at(url: str | None, database: KillableDatabase | None = None) -> DemoStore:
    """Prepare the store at a URL, and return it as the demo's store.

    Raises StoreError if it cannot be used or is not empty.
    """
    if url is None:
        return DemoStore()
    await store_for(url).migrate()
    store = store_for(url)
    await store.open_readonly()
    try:
        if await store.find(Query(limit=1)) or await store.rooms(limit=1):
            raise StoreError(
                f"the store {store.location} is not empty, and the demo counts what it holds: name an empty store"
            )
    finally:
        await store.close()
    # The replicas run in another folder: a relative path would name another file there.
    return DemoStore(f"sqlite:///{quote(store.location)}" if isinstance(store, SqliteStore) else url, database)


class DemoServer:
    """Run one of the demo's programs in a folder, on a port that the system picks."""

    def __init__(self, folder: Path, secret: str, program: str, store: DemoStore) -> None:
        self.folder = folder
        self._program = program
        self.store = store.url_in(folder)
        self.port = 0
        self.refusals: list[str] = []
        self._environment = foreign_environment() | {
            "WHEREBY_WEBHOOK_SECRET": secret,
            "WHEREBY_TRIGGER_STORE": self.store,
            "WHEREBY_TRIGGER_HOST": "127.0.0.1",
            "WHEREBY_TRIGGER_PORT": "0",
            **store.settings,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process, None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start the process and wait until it listens; raises LifecycleError, with its last output, if it does not."""
        program = self.folder / self._program
        if not program.exists():
            with resources.as_file(resources.files("whereby_trigger.cli.demo") / self._program) as packaged:
                shutil.copy(packaged, program)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program)),
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        lines = self._lines(self._process)
        self.port = await self._listening(lines)
        self._log = asyncio.create_task(self._read_log(lines))

    async def kill(self) -> None:
        """End the process as a crash would, and wait until it is gone."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._gone()

    async def stop(self) -> None:
        """Ask the process to drain and exit; kill it if it does not."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
        await self.kill()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._log is not None:
            await self._log

    async def _lines(self, process: asyncio.subprocess.Process) -> AsyncIterator[str]:
        if process.stderr is not None:
            async for line in process.stderr:
                yield line.decode(errors="replace")

    async def _listening(self, lines: AsyncIterator[str]) -> int:
        said: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_WITHIN):
                async for line in lines:
                    said.append(line)
                    if address := ADDRESS.search(line):
                        return int(address[1])
        await self.kill()
        raise LifecycleError("the demo's server did not start; its output was:\n" + "".join(said[-20:]))

    async def _read_log(self, lines: AsyncIterator[str]) -> None:
        """Read the log to its end: a pipe that nobody reads would block the process."""
        async for line in lines:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("answer", 200) != 200:
                    self.refusals.append(entry["reason"])


async def post(port: int, body: bytes, secret: str) -> int:
    """Post a body to a port of this machine, signed now; return the status, or NO_ANSWER if none came in time."""
    return await asyncio.to_thread(_post, port, body, secret)


def _post(port: int, body: bytes, secret: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN)
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(secret, body, int(time.time()))}
    try:
        connection.request("POST", "/", body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return NO_ANSWER
    finally:
        connection.close()
