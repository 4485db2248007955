"""How long it takes to ask a long-used store what happened, and to bring it to the schema that has runs.

Run it by `python -m bench.history`, with `--webhooks`, `--runs` and `--stores` for less than all of it.
"""

import argparse
import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import patch

import asyncpg

from bench.stores import POSTGRES, SPREAD, SQLITE, fill, stores
from whereby_trigger import timeline
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.store import Arrival, Query, RoomQuery, RoomState, RunQuery, State, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.postgres import lease as postgres_lease
from whereby_trigger.store.postgres import opening as postgres_opening
from whereby_trigger.store.sqlite import lease as sqlite_lease
from whereby_trigger.store.sqlite import opening as sqlite_opening
from whereby_trigger.store.sqlite.connection import path_of

SCRIPTS = {SQLITE: sqlite_opening, POSTGRES: postgres_opening}
LEASES = {SQLITE: sqlite_lease, POSTGRES: postgres_lease}
RUNS = {SQLITE: 7, POSTGRES: 6}
"""The migrations that bring runs."""

EACH = 4
"""Runs of an entry."""

ROUNDS = 5
ENDED = RoomState.ENDED
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
OUTPUT = "\n".join(f"line {n} of what it said before it gave up" for n in range(50))


@contextlib.contextmanager
def before_runs(kind: str) -> Iterator[None]:
    """Replace the migrations by those of a version that does not have runs yet."""
    module = SCRIPTS[kind]
    older = {number: script for number, script in module.scripts().items() if number < RUNS[kind]}
    with (
        patch.object(module, "scripts", lambda: older),
        patch.object(module, "SCHEMA", max(older)),
        patch.object(LEASES[kind], "begin_replica"),
    ):
        yield


async def execute(url: str, sqlite: str, postgres: str, values: dict[str, Any]) -> None:
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


async def migrated(url: str, kind: str) -> tuple[float, float]:
    """Migrate a store to the schema with runs while a replica of the version before takes deliveries.

    Return the seconds of the migration, and those of the slowest delivery.
    """
    with before_runs(kind):
        older = store_for(url)
        await older.open(lambda: None)
    begun = time.monotonic()
    migrating = asyncio.ensure_future(store_for(url).migrate())
    slowest, number = 0.0, 0
    while not migrating.done():
        sent = time.monotonic()
        await older.add(Arrival(f"meanwhile {number}", "odd", None, b"{}", time.time(), State.QUARANTINED, "odd"))
        slowest, number = max(slowest, time.monotonic() - sent), number + 1
    await migrating
    took = time.monotonic() - begun
    await older.close()
    return took, slowest


def questions(store: Store, now: float) -> dict[str, Callable[[], Awaitable[list[Any]]]]:
    hour = {"since": now - SPREAD / 2, "until": now - SPREAD / 2 + 3600}
    room = "acme.whereby.com/room-001234"
    return {
        "assistants list": lambda: store.find_rooms(RoomQuery(limit=50)),
        "assistants list --since --until (3 days ago)": lambda: store.find_rooms(RoomQuery(limit=50, **hour)),  # type: ignore[arg-type]
        "assistants list --room NAME": lambda: store.find_rooms(RoomQuery(room="/room-001234", limit=50)),
        "assistants list: all that are not over": lambda: store.find_rooms(RoomQuery(open=True)),
        "assistants list --state ended, of which there is none": lambda: store.find_rooms(
            RoomQuery(state=ENDED, limit=50)
        ),
        "assistants show ID": lambda: store.find_runs(RunQuery(entry=12_000)),
        "runs of a room": lambda: store.find_runs(RunQuery(room=room, limit=50)),
        "runs of an hour, 3 days ago": lambda: store.find_runs(RunQuery(limit=50, **hour)),  # type: ignore[arg-type]
        "events list": lambda: store.find(Query(limit=50)),
        "events list --since 2h": lambda: store.find(Query(since=now - 7200, limit=50)),
        "events list --since --until (3 days ago)": lambda: store.find(Query(limit=50, **hour)),  # type: ignore[arg-type]
        "events list --since 7d": lambda: store.find(Query(since=now - 7 * 86400, limit=50)),
        "rooms list": lambda: _there(store),
        "rooms show NAME: which rooms it may be": lambda: store.room_keys("/room-001234"),
        "rooms show ROOM": lambda: _timeline(store, room, now),
        "rooms show ROOM --since --until (3 days ago)": lambda: _timeline(store, room, now, **hour),
        "entries of 50 webhooks": lambda: store.find_rooms(
            RoomQuery(webhooks=tuple(f"webhook {n}" for n in range(50)))
        ),
    }


async def _there(store: Store) -> list[Any]:
    return [*await store.find_rooms(RoomQuery(open=True, limit=50)), *await store.occupied(50)]


async def _timeline(store: Store, room: str, now: float, since: float | None = None, until: float | None = None) -> Any:
    shown = await timeline.of_room(store, room, since, until, now=now)
    return [entry for meeting in shown.meetings for entry in meeting.entries]


async def measure(url: str, kind: str, webhooks: int, runs: int) -> None:
    entries = runs // EACH
    with before_runs(kind):
        await fill(url, webhooks)
    now = time.time()
    values = {"count": entries, "oldest": now - SPREAD, "every": SPREAD / entries, "output": OUTPUT}
    await execute(url, SQLITE_ROOMS, POSTGRES_ROOMS, values)
    took, slowest = await migrated(url, kind)
    print(f"{kind}: {webhooks:,} webhooks, {entries:,} entries")
    print(f"  {took:7.2f} s   the migration; the slowest delivery meanwhile took {1000 * slowest:.0f} ms")
    await execute(url, SQLITE_RUNS, POSTGRES_RUNS, {"output": OUTPUT})
    async with store_to_read(url) as store:
        print(f"  {len(await store.find_runs(RunQuery())):,} runs")
        for name, ask in questions(store, now).items():
            times = []
            for _ in range(ROUNDS):
                begun = time.monotonic()
                found = await ask()
                times.append(time.monotonic() - begun)
            print(f"  {1000 * max(times):7.1f} ms  {name}: {len(found)} rows, the slowest of {ROUNDS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webhooks", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--stores", default=f"{SQLITE},{POSTGRES}")
    asked = parser.parse_args()
    with stores(0) as made:
        for kind in asked.stores.split(","):
            with made.new(kind) as url:
                asyncio.run(measure(url, kind, asked.webhooks, asked.runs))


if __name__ == "__main__":
    main()
