"""A store after long use: filled with decided webhooks by SQL, since delivering millions would take hours."""

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import asyncpg

from bench.bodies import ROOMS, template
from bench.load import LoadFailed
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite.connection import path_of

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
