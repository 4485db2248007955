"""How long it takes to ask a long-used store what happened, and to bring it to the schema that has runs.

Run it by `python -m bench.history`, with `--webhooks`, `--runs` and `--stores` for less than all of it.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import patch

from bench.stores import EACH, POSTGRES, SPREAD, SQLITE, fill, fill_rooms, fill_runs, on_each_store
from whereby_trigger import timeline
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.store import Arrival, Query, RoomQuery, RoomState, RunQuery, State, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.postgres import lease as postgres_lease
from whereby_trigger.store.postgres import opening as postgres_opening
from whereby_trigger.store.sqlite import lease as sqlite_lease
from whereby_trigger.store.sqlite import opening as sqlite_opening

SCRIPTS = {SQLITE: sqlite_opening, POSTGRES: postgres_opening}
LEASES = {SQLITE: sqlite_lease, POSTGRES: postgres_lease}
RUNS = {SQLITE: 7, POSTGRES: 6}
"""The migrations that bring runs."""

ROUNDS = 5
ENDED = RoomState.ENDED


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
    await fill_rooms(url, entries)
    took, slowest = await migrated(url, kind)
    print(f"{kind}: {webhooks:,} webhooks, {entries:,} entries")
    print(f"  {took:7.2f} s   the migration; the slowest delivery meanwhile took {1000 * slowest:.0f} ms")
    await fill_runs(url)
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
    on_each_store(asked.stores, lambda url, kind: measure(url, kind, asked.webhooks, asked.runs))


if __name__ == "__main__":
    main()
