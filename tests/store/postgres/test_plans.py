"""Frequent queries use an index, however the server plans them, and read no more than they need."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.arrivals import arrival, decision
from tests.support.connecting import connected
from tests.support.postgres import Server, database_of, shared_server
from tests.support.until import eventually
from whereby_trigger.store import Query, RoomQuery, RunQuery
from whereby_trigger.store.postgres import PostgresStore, history, lease, rooms, webhooks
from whereby_trigger.store.postgres.connection import PLANS
from whereby_trigger.store.postgres.cursor import LAST, LAST_SETTLED, SETTLED_SINCE, WEBHOOKS_AFTER

pytestmark = pytest.mark.anyio

LIVING = [f"{number:032x}" for number in range(1, 5)]
ME, DEAD = LIVING[0], "f" * 32
WEBHOOKS, ROOMS, DONE = 30_000, 2_000, 20_000
FILL = f"""
INSERT INTO whereby_trigger.replicas SELECT unnest(ARRAY{LIVING}), 1, 0, whereby_trigger.clock() + 1e6;
INSERT INTO whereby_trigger.webhooks
    (seq, id, type, room, body, received_at, queued_at, stored_at, owner, state, decided_at)
SELECT n, md5(n::text), (ARRAY['room.client.joined', 'room.client.left', 'room.session.started'])[1 + n % 3],
    'acme.whereby.com/' || n % {ROOMS}, convert_to(repeat(md5(n::text), 17), 'UTF8'), n, n, n,
    (ARRAY{LIVING})[1 + n % 4], CASE WHEN n > {WEBHOOKS} - 3000 THEN 'pending' ELSE 'fired' END,
    CASE WHEN n > {WEBHOOKS} - 3000 THEN NULL ELSE n END
FROM generate_series(1, {WEBHOOKS}) n;
SELECT setval('whereby_trigger.webhooks_seq', {WEBHOOKS});
INSERT INTO whereby_trigger.rooms (key, url, state, owner, asked_at, since)
SELECT 'acme.whereby.com/' || n, '', 'ended', NULL, 0, 0 FROM generate_series(1, {DONE}) n;
INSERT INTO whereby_trigger.rooms (key, url, state, owner, asked_at)
SELECT 'acme.whereby.com/' || n, '', CASE WHEN n % 10 = 0 THEN 'waiting' ELSE 'live' END,
    CASE WHEN n % 10 = 0 THEN NULL ELSE (ARRAY{LIVING})[1 + n % 4] END, 0
FROM generate_series(1, {ROOMS}) n;
INSERT INTO whereby_trigger.presence (key, humans, bots, humans_since, changed_at, differed_at, received_at)
SELECT 'acme.whereby.com/' || n, n % 3, 0, 0, 0, 0, 0 FROM generate_series(1, {DONE}) n;
INSERT INTO whereby_trigger.runs (entry, key, replica, attempt, started_at, ended_at, outcome)
SELECT id, key, '', 1, id, CASE WHEN state = 'ended' THEN id + 10 END, CASE WHEN state = 'ended' THEN 'left' END
FROM whereby_trigger.rooms;
INSERT INTO whereby_trigger.refusals (minute, reason, replica, status, count)
SELECT 60 * n, 'wrong signature', (ARRAY{LIVING})[1 + n % 4], 401, 1 FROM generate_series(1, {DONE}) n;
ANALYZE whereby_trigger.webhooks, whereby_trigger.rooms, whereby_trigger.replicas, whereby_trigger.presence,
    whereby_trigger.runs, whereby_trigger.refusals
"""
FEW = ["acme.whereby.com/1", "acme.whereby.com/2"]
MANY = [f"acme.whereby.com/{number}" for number in range(500)]
SEQS = list(range(WEBHOOKS - 400, WEBHOOKS, 4))
IDS = [f"{number:032x}" for number in SEQS]
HIGH = WEBHOOKS - 100
N = len(SEQS)
DECISIONS = [(seq, id, ME, "fired", "", 1, 1.0, "[]", None) for seq, id in zip(SEQS, IDS, strict=True)]


def chosen(select: Any, query: Query | RunQuery | RoomQuery, reading: str = "") -> tuple[str, tuple[Any, ...]]:
    """Return the statement that selects rows for a person, and its values."""
    statement, values = select(query)
    return f"{reading}{statement}", tuple(values)


ASKED: dict[str, tuple[str, tuple[Any, ...], set[str]]] = {
    "claim: is there anything": (
        lease.ANYTHING_LEFT,
        (ME, 7200.0),
        {"webhooks_pending", "webhooks_held", "rooms_owner", "rooms_waiting_since"},
    ),
    "claim: what nobody owns": (lease.TAKE_UNOWNED, (ME, 5000), {"webhooks_pending", "webhooks_pkey"}),
    "claim: what the dead own": (
        lease.TAKE_ORPHANED,
        (ME, DEAD, 5000, True),
        {"webhooks_pending", "webhooks_pkey", "replica_log_pkey"},
    ),
    "claim: rooms": (rooms.OWNED_BY, (DEAD, 500), {"rooms_owner"}),
    "claim: rooms to give back": (rooms.FIND_RELEASED, (DEAD, [1, 2]), {"rooms_pkey", "rooms_owner"}),
    "claim: give rooms back": (
        rooms.RELEASE,
        ([1, 2], ["ended", "ended"], ["died", "died"], [None, None], "died", "replica died"),
        {"rooms_pkey", "runs_entry"},
    ),
    "move: the room's lock": (rooms.LOCK_ROOM, (1,), {"rooms_pkey"}),
    "move: the room": (rooms.FIND_OWNED, (1, ME), {"rooms_pkey", "rooms_owner"}),
    "move": (
        rooms.MOVE,
        (1, "ended", "left", None, None, False, None, 0.0, None, "ticket", "left", 0, None, None, ""),
        {"rooms_pkey", "runs_entry"},
    ),
    "claim: rooms that waited too long": (
        rooms.END_OLD,
        (7200.0, 500, "waited longer than max_age"),
        {"rooms_waiting_since", "rooms_pkey"},
    ),
    "claim: rooms that waited too long, with a successor": (
        rooms.OLD_WITH_SUCCESSOR,
        (7200.0, 500),
        {"rooms_waiting_since", "rooms_waiting"},
    ),
    "claim: one of these": (rooms.FIND_OLD, (1, 7200.0), {"rooms_pkey", "rooms_waiting"}),
    "claim: what the dead hold": (lease.TAKE_HELD, (ME, DEAD, 5000), {"webhooks_held", "webhooks_pkey"}),
    "hold": (
        webhooks.HOLD,
        (SEQS, IDS, [""] * N, [30.0] * N, ["[]"] * N, [ME] * N),
        {"webhooks_pending", "webhooks_pkey"},
    ),
    "hold again": (webhooks.HELD_SO, (SEQS, [ME] * N), {"webhooks_held", "webhooks_pkey"}),
    "ask again": (webhooks.ASK_AGAIN, (SEQS, ME), {"webhooks_held", "webhooks_pkey"}),
    "ask again: what is locked": (webhooks.STILL_HELD, (SEQS, ME), {"webhooks_held", "webhooks_pkey"}),
    "leave": (lease.DISOWN, (None, DEAD, 5000), {"webhooks_pending", "webhooks_pkey"}),
    "take": (
        rooms.TAKE,
        (ME, 10, "ticket", 7200.0, 60.0, 43200.0),
        {"rooms_waiting", "rooms_waiting_since", "rooms_pkey", "presence_pkey"},
    ),
    "take: what was taken": (
        rooms.TAKEN,
        (ME, ["ticket"]),
        {"rooms_owner", "rooms_open", "webhooks_id_key", "webhooks_pkey"},
    ),
    "stopping": (
        rooms.STOPPING,
        (ME, 60.0, 43200.0),
        {"rooms_owner", "rooms_open", "presence_pkey"},
    ),
    "end waiting": (
        rooms.WAITING_AT_BOUND,
        (60.0, 43200.0, 500),
        {"rooms_waiting", "rooms_waiting_since", "presence_pkey"},
    ),
    "stopping: those at a bound": (
        rooms.TO_BOUND,
        (ME, [WEBHOOKS, 1, 2], FEW),
        {"rooms_pkey", "rooms_open", "presence_pkey"},
    ),
    "heard: how far, at first": (LAST_SETTLED, (10.0,), {"webhooks_pkey"}),
    "heard: how far by now": (SETTLED_SINCE, (10.0, HIGH, LAST), {"webhooks_pkey"}),
    "heard: the newest of many rooms": (WEBHOOKS_AFTER, (HIGH, WEBHOOKS, MANY, 500), {"webhooks_room"}),
    "heard: a long time of a few rooms": (WEBHOOKS_AFTER, (0, WEBHOOKS, FEW, 500), {"webhooks_room"}),
    "pending": (webhooks.PENDING, (ME, 0, 500), {"webhooks_pending"}),
    "decide": (
        webhooks.DECIDE,
        (DECISIONS,),
        {"webhooks_pending", "webhooks_pkey"},
    ),
    "decide, with errors": (
        webhooks.DECIDE_WITH_ERRORS,
        (DECISIONS,),
        {"webhooks_pending", "webhooks_pkey"},
    ),
    "decide again": (webhooks.DECIDED_SO, (SEQS, ["fired"] * N, [1.0] * N, [ME] * N), {"webhooks_pkey"}),
    "add again": (webhooks.STORED_SO, (IDS, [1.0] * N, [ME] * N), {"webhooks_id_key"}),
    "blame": (webhooks.BEGIN_ATTEMPT, (WEBHOOKS, ME), {"webhooks_pkey", "webhooks_pending"}),
    "note": (webhooks.APPEND_ERROR, (IDS[0], "error"), {"webhooks_id_key"}),
    "add: its effect": (webhooks.NOTE_EFFECT, (WEBHOOKS, ME, "effect"), {"webhooks_pkey", "webhooks_pending"}),
    "move: its sessions": (rooms.CHANGES_AROUND, (1,), {"rooms_pkey", "webhooks_sessions"}),
    "request: some rooms": (rooms.LOOK_AT_OPEN, (FEW,), {"rooms_open"}),
    "request: many rooms": (rooms.LOOK_AT_OPEN, (MANY,), {"rooms_open"}),
    "request: the room": (rooms.FIND_OPEN, (FEW[0],), {"rooms_open"}),
    "request: its sessions": (rooms.SESSION_CHANGES, (FEW[0],), {"webhooks_sessions"}),
    "prune": (webhooks.PRUNE, (0.0, 1e12, 500), {"webhooks_decided", "webhooks_pkey"}),
    "prune rooms": (rooms.FORGET, (0.0, 500), {"rooms_ended", "rooms_pkey", "runs_entry"}),
    "prune runs": (history.FORGET_RUNS, (0.0, 500), {"runs_ended", "runs_pkey"}),
    "show: the runs of an entry": (*chosen(history.select_runs, RunQuery(entry=1)), {"runs_entry"}),
    "show: the runs of a room": (*chosen(history.select_runs, RunQuery(room=FEW[0], limit=50)), {"runs_room"}),
    "show: the runs of a name": (*chosen(history.select_runs, RunQuery(room="/1", limit=50)), {"runs_room"}),
    "show: the runs of an hour": (
        *chosen(history.select_runs, RunQuery(since=5000.0, until=5100.0, limit=50)),
        {"runs_started", "runs_ended"},
    ),
    "timeline: the webhooks of a room": (
        *chosen(webhooks.select, Query(room=FEW[0], limit=500), f"{webhooks.FIND} "),
        {"webhooks_room"},
    ),
    "timeline: the rooms of a name": (rooms.KEYS, ("/1",), {"webhooks_room", "rooms_name"}),
    "list: all": (*chosen(rooms.select, RoomQuery(limit=50)), {"rooms_pkey"}),
    "list: a room": (*chosen(rooms.select, RoomQuery(room=FEW[0], limit=50)), {"rooms_name"}),
    "list: a name": (*chosen(rooms.select, RoomQuery(room="/1", limit=50)), {"rooms_name"}),
    "give back: what is ours": (*chosen(rooms.select, RoomQuery(owner=ME)), {"rooms_owner"}),
    "list: what webhooks asked for": (*chosen(rooms.select, RoomQuery(webhooks=("a", "b"))), {"rooms_webhook"}),
    "list: webhooks of an hour": (
        *chosen(webhooks.select, Query(since=5000.0, until=5100.0, limit=50), f"{webhooks.FIND} "),
        {"webhooks_decided", "webhooks_pending", "webhooks_pkey"},
    ),
    "list: an hour": (
        *chosen(rooms.select, RoomQuery(since=5000.0, until=5100.0, limit=50)),
        {"rooms_pkey", "rooms_ended", "rooms_open", "rooms_owner", "rooms_waiting"},
    ),
    "refusals of some minutes": (history.READ_REFUSALS, (60_000, 61_000), {"refusals_pkey"}),
    "prune refusals": (history.FORGET_REFUSALS, (6_000, 500), {"refusals_pkey"}),
    "workload": (webhooks.WORKLOAD, (), {"webhooks_pending", "webhooks_held", "rooms_open"}),
}
NAMES = {statement: name for name, (statement, *_) in ASKED.items()}


@pytest.fixture(scope="module")
def filled() -> Iterator[str]:
    """Yield the URL of a database with many rows."""
    server = shared_server()
    server.revive()
    url = server.create_database()
    asyncio.run(PostgresStore(url).migrate())
    server.run(FILL, database_of(url))
    yield url
    server.drop_databases()


@pytest.fixture(scope="module")
def empty() -> Iterator[str]:
    """Yield the URL of a store without a row."""
    server = shared_server()
    server.revive()
    url = server.create_database()
    asyncio.run(PostgresStore(url).migrate())
    yield url
    server.drop_databases()


KINDS = "pkey|key|room|name|webhook|sessions|decided|ended|entry|started"
WHOLE = rf"\w+_(?:{KINDS}) on (?:webhooks|rooms|presence|runs|refusals)"
"""The indexes that hold every row of a table that grows; those of what is pending, held or waiting stay small."""


def walked(plan: str) -> list[str]:
    """Return the steps of a plan that read one of the WHOLE indexes from end to end."""
    lines = ["", *plan.splitlines(), ""]
    steps = zip(lines, lines[1:], lines[2:], strict=False)
    return [
        step
        for above, step, below in steps
        if re.search(rf"Index (?:Only )?Scan using {WHOLE}", step) and "Limit" not in above and "Cond" not in below
    ]


def indexes(plan: str) -> set[str]:
    """Return the indexes that a plan uses; fails if it reads a whole table that grows."""
    assert not re.search(r"Seq Scan on (webhooks|rooms|presence|runs|refusals)", plan), plan
    return set(re.findall(r"(?:using|Bitmap Index Scan on) (\w+)", plan)) - {"replicas_pkey"}


async def pages_read(connection: Any, statement: str, *values: Any) -> int:
    """Run a statement and count the pages that it reads."""
    plan = [row[0] for row in await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", *values)]
    found = next(line for line in plan if "Buffers:" in line)
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", found))


@pytest.mark.parametrize("name", ASKED)
async def test_a_plan_made_for_the_values_goes_by_an_index(filled: str, name: str) -> None:
    statement, values, allowed = ASKED[name]
    async with connected(filled) as connection:
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values))
    found = indexes(plan)
    assert found, plan
    assert found <= allowed, plan


@pytest.mark.parametrize("statement", NAMES, ids=NAMES.values())
def test_a_plan_made_for_any_values_goes_by_an_index(filled: str, statement: str) -> None:
    allowed = {index for asked, _, indexes in ASKED.values() if asked == statement for index in indexes}
    found = indexes(shared_server().run(f"EXPLAIN (GENERIC_PLAN) {statement}", database_of(filled)))
    assert found <= allowed, found


@pytest.mark.parametrize("statement", NAMES, ids=NAMES.values())
def test_a_plan_made_while_the_store_is_empty_goes_by_an_index(empty: str, statement: str) -> None:
    """A replica keeps it when the tables have grown."""
    plan = shared_server().run(f"{PLANS} EXPLAIN (GENERIC_PLAN) {statement}", database_of(empty))
    allowed = {index for asked, _, indexes in ASKED.values() if asked == statement for index in indexes}
    # Few runs go on, and few rooms wait.
    assert indexes(plan) <= allowed | {"runs_ended", "rooms_waiting_since"}, plan
    assert not walked(plan), plan


async def test_a_replica_whose_store_was_empty_decides_without_reading_all_webhooks(url: str) -> None:
    store = PostgresStore(url)
    await store.migrate()
    async with connected(url) as connection:
        # The server must not come and plan again.
        await connection.execute("ALTER TABLE whereby_trigger.webhooks SET (autovacuum_enabled = off)")
    await store.open()
    for first in range(0, 400, 20):
        ids = [f"webhook {number}" for number in range(first, first + 20)]
        added = await asyncio.gather(*(store.add(arrival(id)) for id in ids))
        decided = [store.decide(decision(one.seq, id)) for one, id in zip(added, ids, strict=True)]
        assert all(await asyncio.gather(*decided))
    await store.close()
    async with connected(url) as connection:
        counted = "SELECT n_tup_upd, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'webhooks'"

        async def all_is_counted() -> bool:
            return bool((await connection.fetchrow(counted))[0] == 400)

        await eventually(all_is_counted)
        assert (await connection.fetchrow(counted))[1] == 0


async def test_the_look_for_the_dead_does_not_walk_through_what_the_living_have_decided(
    postgres: Server, url: str
) -> None:
    """A long transaction, such as a backup's, keeps all of that in the index of what is pending."""
    await PostgresStore(url).migrate()
    postgres.run(FILL, database_of(url))
    async with connected(url) as backup, connected(url) as connection:
        await backup.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM whereby_trigger.replicas")
        await connection.execute("UPDATE whereby_trigger.webhooks SET state = 'fired', decided_at = 1")
        assert await pages_read(connection, lease.ANYTHING_LEFT, ME, 7200.0) < 100
        await backup.execute("COMMIT")


async def test_forgetting_reads_what_it_forgets_also_where_new_rows_lie_in_the_place_of_old_ones(
    postgres: Server, url: str
) -> None:
    await PostgresStore(url).migrate()
    postgres.run(FILL, database_of(url))
    async with connected(url) as connection:
        for kept_from in (10_000, 20_000):
            await connection.execute("DELETE FROM whereby_trigger.webhooks WHERE received_at < $1", kept_from)
            await connection.execute("VACUUM ANALYZE whereby_trigger.webhooks")
            await connection.execute(
                "INSERT INTO whereby_trigger.webhooks (seq, id, type, body, received_at, queued_at, state, decided_at) "
                "SELECT nextval('whereby_trigger.webhooks_seq'), 'new ' || $1::integer || n, type, body, 1e6 + n, 0, "
                "'fired', 1 FROM whereby_trigger.webhooks, generate_series(1, 10000) n WHERE seq = 27000",
                kept_from,
            )
        forgetting = await pages_read(connection, webhooks.PRUNE, 20_100.0, 1e12, 500)
        assert await connection.fetchval("SELECT min(received_at) FROM whereby_trigger.webhooks") > 20_050
        assert forgetting < 1000
