"""Measure what a webhook, an assistant and a look cost a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from msgspec import Struct

from bench.bodies import Body, bodies
from bench.machine import machine
from scripts.scaling.assumptions import CHANGES_PER_ASSISTANT, LIVE_ROOMS, ROOMS_EACH, per_second
from scripts.scaling.figures import Figures, Look
from tests.support.connecting import connected
from tests.support.postgres import Server
from whereby_trigger.store import Arrival, Bounds, Decision, RoomMove, RoomRequest, RoomState, State, Store
from whereby_trigger.store.postgres import PostgresStore, lease, rooms
from whereby_trigger.store.postgres.cursor import SettledCursor

BATCH = 50
DEAD = 0.2
"""The share of dead rows at which PostgreSQL vacuums a table on its own; here it runs VACUUM, since all is faster."""

SIZES = """
SELECT pg_table_size('whereby_trigger.webhooks') AS own, pg_indexes_size('whereby_trigger.webhooks') AS indexes,
    (SELECT count(*) FROM whereby_trigger.webhooks) AS rows
"""
ROOM_SIZE = "SELECT pg_total_relation_size('whereby_trigger.rooms')::float8"
LOGGED = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
REASON = "predicate a_visitor returned True; an assistant starts"
REPLICAS = """
INSERT INTO whereby_trigger.replicas
SELECT md5(n::text), 1, 0, whereby_trigger.clock() + 1e6 FROM generate_series(0, $1::integer - 1) n
"""
LIVE = """
INSERT INTO whereby_trigger.rooms (key, url, state, owner, asked_at)
SELECT 'acme.whereby.com/visit-' || n, 'https://acme.whereby.com/visit-' || n, 'live', md5((n % $2::integer)::text), 0
FROM generate_series(1, $1::integer) n
"""
RECENT = """
INSERT INTO whereby_trigger.webhooks
    (seq, id, type, room, body, received_at, queued_at, stored_at, owner, state, decided_at)
SELECT nextval('whereby_trigger.webhooks_seq'), md5(n::text) || md5('x' || n), 'room.client.joined',
    'acme.whereby.com/visit-' || 1 + n % $1::integer, convert_to(rpad(n::text, 550, 'x'), 'UTF8'),
    extract(epoch FROM now()), 0, extract(epoch FROM now()) - n / $2::float8, md5((n % 7)::text), 'fired', 1
FROM generate_series($3::integer, 1, -1) n
"""


class Dose(Struct, frozen=True):
    """Hold how much to measure."""

    webhooks: int = 200_000
    kept: int = 50_000
    assistants: int = 5_000
    looks: int = 300
    live: tuple[int, ...] = LIVE_ROOMS


async def measure(dose: Dose) -> Figures:
    """Measure everything, on a new server."""
    described = machine()
    with Server(autovacuum="off", shared_buffers="512MB", max_wal_size="8GB", checkpoint_timeout="1h") as server:
        async with _opened(server.create_database()) as (store, connection):
            own, indexes, webhook_log = await _webhooks(store, connection, dose)
        async with _opened(server.create_database()) as (store, connection):
            assistant_disk, assistant_log = await _assistants(store, connection, dose.assistants)
        looks = [await _look(server.create_database(), live, dose.looks) for live in dose.live]
        version = server.run("SHOW server_version")
    return Figures(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=described,
        postgres=version,
        webhooks=dose.webhooks,
        kept=dose.kept,
        assistants=dose.assistants,
        webhook_table=own,
        webhook_indexes=indexes,
        webhook_log=webhook_log,
        assistant_disk=assistant_disk,
        assistant_log=assistant_log,
        looks=looks,
    )


async def _webhooks(store: Store, connection: Any, dose: Dose) -> tuple[float, float, float]:
    """Store and decide webhooks, deleting the oldest, and measure the size of the rest during the last fifth."""
    source, began = bodies(), await connection.fetchval(LOGGED)
    sizes: list[tuple[float, float]] = []
    dead = 0
    for number in range(0, dose.webhooks, BATCH):
        await _store_and_decide(store, [next(source) for _ in range(BATCH)], float(number))
        # A decision leaves the old version of its row behind, and a deletion leaves the deleted row.
        dead += BATCH + await store.prune(number - dose.kept)
        if dead > DEAD * dose.kept:
            await connection.execute("VACUUM ANALYZE whereby_trigger.webhooks")
            dead = 0
        if number >= dose.webhooks * 4 // 5 and number % (5 * BATCH) == 0:
            row = await connection.fetchrow(SIZES)
            sizes.append((row["own"] / row["rows"], row["indexes"] / row["rows"]))
    logged = float(await connection.fetchval(LOGGED) - began) / dose.webhooks
    return mean(own for own, _ in sizes), mean(indexes for _, indexes in sizes), logged


async def _store_and_decide(store: Store, batch: list[Body], now: float) -> None:
    arrivals = [_arrival(one.id, one.body, now) for one in batch]
    added = await asyncio.gather(*(store.add(arrival) for arrival in arrivals))
    decided = [
        store.decide(Decision(one.seq, arrival.id, State.FIRED, REASON, 1, now))
        for one, arrival in zip(added, arrivals, strict=True)
    ]
    if not all(await asyncio.gather(*decided)):
        raise RuntimeError("a decision was not stored")


def _arrival(id: str, body: bytes, received_at: float) -> Arrival:
    room = body.partition(b'"roomName":"')[2].partition(b'"')[0].decode()
    return Arrival(id, "room.client.joined", f"acme.whereby.com{room}", body, received_at)


async def _assistants(store: Store, connection: Any, count: int) -> tuple[float, float]:
    """Run rooms through their whole life: request an assistant, get it, end."""
    empty, began, dead = await connection.fetchval(ROOM_SIZE), await connection.fetchval(LOGGED), 0
    for number in range(count):
        key = f"acme.whereby.com/room-{number:06d}"
        await store.request(RoomRequest(key, f"https://{key}", f"{number:064x}", f"{number:032x}", 0.0))
        (room,) = await store.take(1)
        for state in (RoomState.LIVE, RoomState.ENDING, RoomState.ENDED):
            await store.move(RoomMove(room.id, state, "its session has ended"))
        dead += CHANGES_PER_ASSISTANT - 1
        if dead > max(50, DEAD * number):
            await connection.execute("VACUUM ANALYZE whereby_trigger.rooms")
            dead = 0
    logged = float(await connection.fetchval(LOGGED) - began)
    return (await connection.fetchval(ROOM_SIZE) - empty) / count, logged / count


async def _look(url: str, live: int, times: int) -> Look:
    """Run the queries of a replica's look on a database as busy as with `live` live rooms."""
    await PostgresStore(url).migrate()
    each, rate = min(ROOMS_EACH, live // 2), per_second(live)
    async with connected(url) as connection:
        await connection.execute(REPLICAS, live // each)
        await connection.execute(LIVE, live, live // each)
        # Insert as many as were stored in the last ten seconds, and as many older ones: a query for new ones must end.
        await connection.execute(RECENT, live, rate, 2 * max(1, round(10 * rate)))
        await connection.execute("ANALYZE")
        replica = await connection.fetchval("SELECT owner FROM whereby_trigger.rooms LIMIT 1")
        keys = await connection.fetch("SELECT key FROM whereby_trigger.rooms WHERE owner = $1", replica)
        heard = frozenset(row["key"] for row in keys)
        hearing = SettledCursor()
        after = (await hearing.webhooks_after(connection, 0, frozenset())).cursor
        bounds = Bounds(60.0, 12 * 3600.0)
        asked: list[Callable[[], Awaitable[Any]]] = [
            lambda: lease.take_over(connection, replica, 7200.0, lambda seconds: None, set(), rejoined=False),
            lambda: rooms.take(connection, replica, 1, ("none",), 7200.0, bounds),
            lambda: rooms.stopping(connection, replica, bounds),
            lambda: hearing.webhooks_after(connection, after, heard),
        ]
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        began = _on_a_core(pid)
        for _ in range(times):
            for ask in asked:
                await ask()
        return Look(live, each, rate, (_on_a_core(pid) - began) * 1000 / times)


def _on_a_core(pid: int) -> float:
    """Return the seconds that a process has spent on a core: its waits on a busy machine are left out.

    Source: the kernel's documentation, scheduler/sched-stats.
    """
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[tuple[Store, Any]]:
    # Nobody renews its lease here.
    store = PostgresStore(url, lease_ttl=86_400.0)
    await store.open(lambda: None)
    try:
        async with connected(url) as connection:
            yield store, connection
    finally:
        await store.close()
