"""The stores that are measured: each is new, is filled by SQL if it must look long used, and is removed after use.

They are read by the benchmark's own SQL: it does not rely on what the program reports. And they are filled by it, since
delivering millions would take hours.
"""

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from msgspec import Struct

from bench.bodies import ROOMS, template
from bench.cores import on
from bench.load import LoadFailed
from tests.support.postgres import Server, database_of
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite.connection import path_of
from whereby_trigger.testing.program import until

SQLITE, POSTGRES = "sqlite", "postgresql"
BUFFERS = "256MB"
"""PostgreSQL's shared_buffers; all other settings have their defaults, or make no difference here."""

PREFIX = "whereby-trigger-bench-"

CHUNK = 100_000
BYTES_EACH = 1600
"""Bytes of one webhook on disk, with its index entries and the journal; a generous estimate."""

SPREAD = 6 * 86400.0
"""Seconds over which the webhooks were received: within the retention, or they would be pruned at the start."""

COLUMNS = "id, type, room, body, received_at, queued_at, owner, state, attempts, reason, decided_at"
SQLITE_FILL = f"""
WITH RECURSIVE numbers (n) AS (SELECT :from UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :to),
ids AS MATERIALIZED (SELECT n, lower(hex(randomblob(32))) AS id, printf('/room-%06d', n % :rooms) AS name FROM numbers)
INSERT INTO webhooks ({COLUMNS})
SELECT id, 'room.client.joined', 'acme.whereby.com' || name,
CAST(:before_id || id || :between || name || :after_room AS BLOB),
:oldest + :every * n, :oldest + :every * n, :owner, 'fired', 1, :reason, :oldest + :every * n + 0.01 FROM ids
"""
POSTGRES_FILL = f"""
INSERT INTO whereby_trigger.webhooks (seq, {COLUMNS})
SELECT nextval('whereby_trigger.webhooks_seq'), id, 'room.client.joined', 'acme.whereby.com' || name,
convert_to($1 || id || $2 || name || $3, 'UTF8'),
received_at, received_at, $6, 'fired', 1, $7, received_at + 0.01
FROM (SELECT $4::float8 + $5::float8 * n AS received_at, encode(sha256(convert_to($8 || n, 'UTF8')), 'hex') AS id,
'/room-' || lpad((n % $9)::text, 6, '0') AS name FROM generate_series($10::bigint, $11::bigint - 1) AS n) AS made
"""


EACH = 4
"""Runs of an entry: those that are filled in, and one that the migration to the schema with runs makes."""

OUTPUT = "\n".join(f"line {n} of what it said before it gave up" for n in range(50))
SQLITE_ROOMS = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :count)
INSERT INTO rooms (key, url, state, webhook, asked_at, queued_at, since, attempt, reason, errors)
SELECT printf('acme.whereby.com/room-%06d', n % 10000), '', 'failed', 'webhook ' || n, :oldest + :every * n,
:oldest + :every * n, :oldest + :every * n + 60, 4, 'exited with 75', json_array(:output) FROM numbers
"""
SQLITE_RUNS = """
WITH RECURSIVE attempts (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM attempts WHERE n < 3)
INSERT INTO runs (entry, key, webhook, replica, attempt, started_at, live_at, ended_at, outcome, reason, output)
SELECT id, key, webhook, 'r', n, queued_at + n, queued_at + n, queued_at + n + 1, 'refused', 'exited with 75', :output
FROM rooms, attempts ORDER BY id, n
"""
POSTGRES_ROOMS = """
INSERT INTO whereby_trigger.rooms (key, url, state, webhook, asked_at, queued_at, since, attempt, reason, errors)
SELECT 'acme.whereby.com/room-' || lpad((n % 10000)::text, 6, '0'), '', 'failed', 'webhook ' || n,
$2::float8 + $3::float8 * n, $2 + $3 * n, $2 + $3 * n + 60, 4, 'exited with 75', ARRAY[$4::text]
FROM generate_series(0, $1::bigint - 1) AS n
"""
POSTGRES_RUNS = """
INSERT INTO whereby_trigger.runs
    (entry, key, webhook, replica, attempt, started_at, live_at, ended_at, outcome, reason, output)
SELECT id, key, webhook, 'r', n, queued_at + n, queued_at + n, queued_at + n + 1, 'refused', 'exited with 75', $1
FROM whereby_trigger.rooms, generate_series(1, 3) AS n ORDER BY id, n
"""


class Stores:
    """Create stores; `launch` starts PostgreSQL when its first database is needed."""

    def __init__(self, launch: Callable[[], Server]) -> None:
        self._launch = launch
        self._server: Server | None = None

    @contextmanager
    def new(self, kind: str) -> Iterator[str]:
        """Provide the URL of a new store for a `with` block; raises ServerFailed without a PostgreSQL."""
        if kind == SQLITE:
            with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
                yield f"sqlite:///{folder}/store.db"
            return
        server = self._server = self._server or self._launch()
        url = server.create_database()
        try:
            yield url
        finally:
            server.run(f"DROP DATABASE {database_of(url)} WITH (FORCE)")

    @property
    def server_pids(self) -> list[int]:
        """The processes of PostgreSQL, empty if it does not run."""
        return [] if self._server is None else self._server.pids

    def close(self) -> None:
        """Stop PostgreSQL and remove its files."""
        if self._server is not None:
            self._server.close()
            self._server = None


@contextmanager
def stores(database_core: int) -> Iterator[Stores]:
    """Create stores for a `with` block, with their own PostgreSQL on a core."""
    made = Stores(partial(_launch, database_core))
    try:
        yield made
    finally:
        made.close()


def _launch(core: int) -> Server:
    server = Server(shared_buffers=BUFFERS)
    try:
        with on(core):
            server.start()
    except BaseException:
        server.close()
        raise
    return server


class Count(Struct, frozen=True):
    """Hold how many webhooks are stored, and how many of them fired."""

    stored: int
    fired: int


class Books(ABC):
    """Read a store's contents; `table` holds its webhooks."""

    table = "webhooks"

    async def last(self) -> int:
        """Return the number of the newest webhook, 0 without one."""
        (last,) = await self.ask(f"SELECT coalesce(max(seq), 0) FROM {self.table}")
        return int(last)

    async def counted(self, after: int) -> Count:
        """Count the webhooks with a number above `after`."""
        fired = "coalesce(sum(CASE WHEN state = 'fired' THEN 1 ELSE 0 END), 0)"
        return Count(*await self.ask(f"SELECT count(*), {fired} FROM {self.table} WHERE seq > {after}"))

    async def until_decided(self, within: float) -> float:
        """Wait until no webhook is pending, and return the time.monotonic() of that; raises TimeoutError."""

        async def all_decided() -> bool:
            return not await self.ask(f"SELECT 1 FROM {self.table} WHERE state = 'pending' LIMIT 1")

        if not await until(all_decided, within):
            raise TimeoutError(f"webhooks are pending after {within:g} s")
        return time.monotonic()

    async def leave_pending(self, webhooks: int, now: float) -> None:
        """Turn the newest webhooks into what a stopped replica leaves undecided; nothing else may write meanwhile."""
        newest = f"(SELECT seq FROM {self.table} ORDER BY seq DESC LIMIT {webhooks})"
        await self.tell(
            f"UPDATE {self.table} SET state = 'pending', owner = NULL, takeovers = 1, attempts = 0, reason = '', "
            f"decided_at = NULL, received_at = {now}, queued_at = {now} WHERE seq IN {newest}"
        )

    @abstractmethod
    async def ask(self, question: str) -> tuple[Any, ...]:
        """Return the first row of an answer, or an empty tuple."""

    @abstractmethod
    async def tell(self, statement: str) -> None:
        """Execute a statement."""

    @abstractmethod
    async def size(self) -> int:
        """Return the store's size on disk, in bytes."""


class SqliteBooks(Books):
    """Read a SQLite file."""

    def __init__(self, url: str) -> None:
        self._path = path_of(url)

    async def ask(self, question: str) -> tuple[Any, ...]:
        with self._connected() as connection:
            return tuple(connection.execute(question).fetchone() or ())

    async def tell(self, statement: str) -> None:
        with self._connected() as connection:
            connection.execute(statement)

    async def size(self) -> int:
        files = [self._path, *(Path(f"{self._path}{end}") for end in ("-wal", "-shm"))]
        return sum(file.stat().st_size for file in files if file.exists())

    def _connected(self) -> "contextlib.closing[sqlite3.Connection]":
        place = f"{self._path.as_uri()}?mode=rw"
        return contextlib.closing(sqlite3.connect(place, uri=True, timeout=5, isolation_level=None))


class PostgresBooks(Books):
    """Read a PostgreSQL database."""

    table = "whereby_trigger.webhooks"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def ask(self, question: str) -> tuple[Any, ...]:
        return tuple(await self._connection.fetchrow(question) or ())

    async def tell(self, statement: str) -> None:
        await self._connection.execute(statement)

    async def size(self) -> int:
        (size,) = await self.ask(f"SELECT pg_total_relation_size('{self.table}')")
        return int(size)


@asynccontextmanager
async def looking_into(url: str) -> AsyncIterator[Books]:
    """Open a store's books for an `async with` block."""
    if url.startswith("sqlite:"):
        yield SqliteBooks(url)
        return
    # A table filled a moment ago has no statistics: PostgreSQL would scan all of it for one row.
    connection = await asyncpg.connect(url, server_settings={"enable_seqscan": "off"})
    try:
        yield PostgresBooks(connection)
    finally:
        await connection.close()


async def fill(url: str, webhooks: int, rooms: int = ROOMS) -> None:
    """Create a store with `webhooks` decided webhooks, spread over the last days and over `rooms` rooms.

    Raises LoadFailed if the disk has not enough room.
    """
    needed, free = webhooks * BYTES_EACH, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise LoadFailed(f"{webhooks:,} webhooks take up to {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free")
    await store_for(url).migrate()
    before_id, between, after_room = (part.decode() for part in template())
    values = {
        "before_id": before_id,
        "between": between,
        "after_room": after_room,
        "oldest": time.time() - SPREAD,
        "every": SPREAD / max(webhooks, 1),
        "owner": "0" * 32,
        "reason": "predicate people returned True",
        "rooms": rooms,
    }
    if url.startswith("sqlite:"):
        _fill_file(url, webhooks, values)
    else:
        await _fill_database(url, webhooks, values)


def _fill_file(url: str, webhooks: int, values: Mapping[str, Any]) -> None:
    with contextlib.closing(sqlite3.connect(path_of(url), isolation_level=None)) as connection:
        # Losing this data costs nothing. The ids are random, so their index must fit in memory.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        for first in range(0, webhooks, CHUNK):
            connection.execute(SQLITE_FILL, {**values, "from": first, "to": min(first + CHUNK, webhooks)})
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def _fill_database(url: str, webhooks: int, values: Mapping[str, Any]) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET synchronous_commit = off")
        for first in range(0, webhooks, CHUNK):
            last = min(first + CHUNK, webhooks)
            names = ("before_id", "between", "after_room", "oldest", "every", "owner", "reason")
            given = [values[name] for name in names]
            await connection.execute(POSTGRES_FILL, *given, url, values["rooms"], first, last)
        await connection.execute("VACUUM ANALYZE whereby_trigger.webhooks")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def fill_rooms(url: str, entries: int) -> None:
    """Add `entries` failed entries of rooms, spread over the last days."""
    values = {"count": entries, "oldest": time.time() - SPREAD, "every": SPREAD / entries, "output": OUTPUT}
    await _execute(url, SQLITE_ROOMS, POSTGRES_ROOMS, values)


async def fill_runs(url: str) -> None:
    """Add three runs of each entry."""
    await _execute(url, SQLITE_RUNS, POSTGRES_RUNS, {"output": OUTPUT})


async def _execute(url: str, sqlite: str, postgres: str, values: dict[str, Any]) -> None:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(path_of(url))) as connection, connection:
            connection.execute(sqlite, values)
        return
    connected = await asyncpg.connect(url)
    try:
        await connected.execute(postgres, *values.values())
        await connected.execute("ANALYZE")
    finally:
        await connected.close()


def on_each_store(kinds: str, measure: Callable[[str, str], Coroutine[Any, Any, None]]) -> None:
    """Call a function with the URL and the kind of a new store of each kind; `kinds` has commas between them."""
    with stores(0) as made:
        for kind in kinds.split(","):
            with made.new(kind) as url:
                asyncio.run(measure(url, kind))
