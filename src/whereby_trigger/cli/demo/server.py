"""The servers of the demo: programs in processes of their own, the store they use, and deliveries to them."""

import json
import shutil
import sys
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing.program import Program
from whereby_trigger.testing.sender import Address, Response, Sender

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


class DemoServer(Program):
    """Run one of the demo's programs, on a port that the system picks, and deliver to it."""

    port: int
    refusals: list[str]
    _sender: Sender

    @classmethod
    async def launch(cls, program: str, folder: Path, secret: str, store: DemoStore) -> "DemoServer":
        """Start a program in a folder and wait until it listens; raises ProgramFailed if it does not."""
        with resources.as_file(resources.files("whereby_trigger.cli.demo") / program) as packaged:
            shutil.copy(packaged, folder)
        environment = {
            "WHEREBY_WEBHOOK_SECRET": secret,
            "WHEREBY_TRIGGER_STORE": store.url_in(folder),
            "WHEREBY_TRIGGER_HOST": "127.0.0.1",
            "WHEREBY_TRIGGER_PORT": "0",
            **store.settings,
        }
        refusals: list[str] = []
        command, note = [sys.executable, str(folder / program)], partial(_note_refusal, refusals)
        server = await cls.start(command, cwd=folder, env=environment, heard=note)
        try:
            server.port = await server.listening()
        except BaseException:
            await server.kill()
            raise
        server.refusals = refusals
        server._sender = Sender(Address.local(server.port), secret, reuse=False)
        return server

    async def deliver(self, body: bytes, *, forged: bool) -> Response:
        """Deliver a body once, signed now; return the answer."""
        return (await self._sender.deliver(body, forged=forged, retries=0))[-1]


def _note_refusal(refusals: list[str], line: bytes) -> None:
    with suppress(ValueError):
        entry = json.loads(line)
        if entry.get("answer", 200) != 200:
            refusals.append(entry["reason"])
