"""The stores that the rows run on, and how the harness reads one: through the methods of Store."""

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

from tests.support.postgres import Server, database_of
from whereby_trigger.store import Query, Record, ReplicaEnding, State, Store
from whereby_trigger.store.factory import store_for

DECIDED_WITHIN = 90.0
LOOK_AGAIN = 0.5
PART = 500
PAGE = 20_000
"""Webhooks read at once where all are read."""

STORE_FILE = "store.db"
LEASE = 3.0
"""Seconds for which a quick lease lasts on PostgreSQL: only its end shows that a replica is dead."""


class SqliteStores:
    """Create stores that are files."""

    name = "sqlite"
    quick_lease: tuple[str, ...] = ()
    """Options of a replica whose death must be noticed soon."""

    late_takeovers = False
    """True if a dead replica's webhooks may be decided after newer ones of their room."""

    @property
    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def new(self, folder: Path) -> str:
        """Return the URL of the store in a folder, which is made; the store is new if the folder is empty."""
        folder.mkdir(exist_ok=True)
        return f"sqlite:///{folder / STORE_FILE}"


class PostgresStores:
    """Create stores that are databases of one server, which a row may disturb as it likes."""

    name = "postgresql"
    quick_lease: tuple[str, ...] = ("--lease-ttl", f"{LEASE:g}")
    late_takeovers = True

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def version(self) -> str:
        return f"PostgreSQL {self.server.run('SHOW server_version')}"

    def new(self, folder: Path) -> str:
        """Return the URL of a new, empty database; nothing of it is in the folder, which is made all the same."""
        folder.mkdir(exist_ok=True)
        return self.server.create_database()

    def disconnect(self, url: str) -> None:
        """End every connection to a database."""
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'"
        self.server.run(ended.format(database_of(url)))


Stores = SqliteStores | PostgresStores
KINDS = (SqliteStores.name, PostgresStores.name)


@contextmanager
def stores_of(kind: str) -> Iterator[Stores]:
    """Create stores of a kind for a `with` block; PostgreSQL gets its own server."""
    if kind == PostgresStores.name:
        with Server() as server:
            yield PostgresStores(server)
    else:
        yield SqliteStores()


def damage(file: Path) -> list[str]:
    """Return what SQLite's own check finds wrong with a file."""
    with closing(sqlite3.connect(file)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    return [] if verdict == "ok" else [f"integrity_check says {verdict}"]


class View:
    """Read a store that others write to."""

    def __init__(self, store: Store, changed: asyncio.Event) -> None:
        self._store = store
        self._changed = changed

    async def records(self) -> list[Record]:
        """Read every stored webhook, in order of arrival, in parts: a replica gives up a read that takes long."""
        found: dict[int, Record] = {}
        until = math.inf
        while new := [one for one in await self._store.find(Query(until=until, limit=PAGE)) if one.seq not in found]:
            found |= {one.seq: one for one in new}
            # Others may have come at the same moment.
            until = math.nextafter(new[-1].received_at, math.inf)
        return [found[seq] for seq in sorted(found)]

    async def of(self, ids: Iterable[str]) -> list[Record]:
        """Read the webhooks with some ids, in parts; useful if there are too many others to read them all."""
        found: list[Record] = []
        remaining = iter(ids)
        while part := tuple(islice(remaining, PART)):
            found += await self._store.find(Query(ids=part))
        return found

    async def losses(self) -> list[float]:
        """Return when replicas lost their lease and went on as others."""
        replicas = await self._store.find_replicas(0.0, time.time())
        lost = [replica for replica in replicas if replica.ending is ReplicaEnding.LEASE_LOST]
        return [replica.ended_at for replica in lost if replica.ended_at is not None]

    async def until_decided(self, within: float = DECIDED_WITHIN) -> None:
        """Wait until nothing is pending; raises TimeoutError."""
        async with asyncio.timeout(within):
            while await self._store.find(Query(state=State.PENDING, limit=1)):
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await self._changed.wait()


async def decided(url: str, within: float = DECIDED_WITHIN) -> list[Record]:
    """Wait until nothing is pending in a store; return every stored webhook, in order of arrival.

    Raises TimeoutError.
    """
    async with viewing(url) as view:
        await view.until_decided(within)
        return await view.records()


@asynccontextmanager
async def viewing(url: str) -> AsyncIterator[View]:
    """Open a store for an `async with` block."""
    store, changed = store_for(url), asyncio.Event()
    await store.open(changed.set)
    try:
        yield View(store, changed)
    finally:
        await store.close()
