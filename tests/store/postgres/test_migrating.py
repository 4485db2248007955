"""A migration beside running replicas: it waits for a table only as long as they would wait."""

import asyncio
from unittest.mock import AsyncMock

import asyncpg
import pytest

from tests.store.conftest import Replicas
from tests.support.arrivals import arrival, decision, held
from tests.support.postgres import Server, database_of
from whereby_trigger.clock import boot_time
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import UNDECIDED, State
from whereby_trigger.store.postgres import PostgresStore, lease, opening
from whereby_trigger.store.postgres.connection import Connection

pytestmark = pytest.mark.anyio

NEXT = opening.SCHEMA + 1
EXPAND = "ALTER TABLE whereby_trigger.webhooks ADD COLUMN later text;"
INDEX = "CREATE INDEX IF NOT EXISTS webhooks_type ON whereby_trigger.webhooks (type);"


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn this program into the next version, which has one more migration."""
    known = opening.scripts()
    monkeypatch.setattr(opening, "SCHEMA", NEXT)
    monkeypatch.setattr(opening, "scripts", lambda: known | {NEXT: EXPAND + INDEX})


@pytest.fixture
async def store_of_this_version(url: str, opened: Replicas) -> PostgresStore:
    store = await opened(url)
    assert isinstance(store, PostgresStore)
    return store


async def test_it_gives_up_a_table_that_is_locked_for_long_before_a_delivery_would(
    url: str, store_of_this_version: PostgresStore, next_version: None
) -> None:
    reading = await asyncpg.connect(url)
    try:
        await reading.execute("BEGIN; SELECT count(*) FROM whereby_trigger.webhooks")
        newer = asyncio.ensure_future(PostgresStore(url).migrate())
        await store_of_this_version.add(arrival("meanwhile"))
        with pytest.raises(StoreUnavailable, match="another transaction has locked what must be changed"):
            await newer
        await reading.execute("COMMIT")
    finally:
        await reading.close()
    assert await PostgresStore(url).migrate() == [NEXT]
    assert not (await store_of_this_version.add(arrival("after"))).duplicate


BATCHES = 12
"""The migration that makes the types of the rows that this program sends."""


def before(number: int) -> dict[int, str]:
    """Return the migrations of the versions before one, and the types without which this program cannot stand in."""
    known = opening.scripts()
    older = {each: script for each, script in known.items() if each < number}
    return older | {max(older): older[max(older)] + known[BATCHES]}


async def test_the_checks_are_widened_beside_a_replica_that_does_not_know_held_webhooks(
    url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_held, known = before(4), opening.scripts()
    with monkeypatch.context() as patched:
        patched.setattr(opening, "scripts", lambda: without_held)
        patched.setattr(opening, "SCHEMA", max(without_held))
        patched.setattr(lease, "begin_replica", AsyncMock())
        older = await opened(url)
    pending = await older.add(arrival("a"))
    monkeypatch.setattr(opening, "scripts", lambda: known | {BATCHES: "SELECT"})
    newer = await opened(url)
    await held(newer, "b")
    assert await older.decide(decision(pending.seq, "a"))
    assert not (await older.add(arrival("c"))).duplicate
    connection = await asyncpg.connect(url)
    try:
        for wrong in ("state = 'odd'", "state = 'fired'", "decided_at = 1"):
            with pytest.raises(asyncpg.CheckViolationError):
                await connection.execute(f"UPDATE whereby_trigger.webhooks SET {wrong} WHERE id = 'b'")
        for state in State:
            await connection.execute(
                "UPDATE whereby_trigger.webhooks SET state = $1, decided_at = $2 WHERE id = 'b'",
                state,
                None if state in UNDECIDED else 1.0,
            )
    finally:
        await connection.close()


async def test_an_index_that_was_made_ahead_without_a_lock_is_found(
    postgres: Server, url: str, store_of_this_version: PostgresStore, next_version: None
) -> None:
    postgres.run(INDEX.replace("INDEX", "INDEX CONCURRENTLY"), database_of(url))
    assert await PostgresStore(url).migrate() == [NEXT]
    assert not (await store_of_this_version.add(arrival("after"))).duplicate


WITHOUT_SAMPLES = ("body", "errors", "reason", "output")
"""The columns that may hold personal data; the reason of a webhook does not."""

FILES = """
SELECT relname, pg_relation_filenode(oid) FROM pg_class
WHERE relnamespace = 'whereby_trigger'::regnamespace AND relkind = 'r' ORDER BY relname
"""
TYPES = """
SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod) FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'whereby_trigger'::regnamespace AND relkind = 'r'
AND attnum > 0 AND attname NOT IN ('body_removed_at', 'silent') ORDER BY 1, 2
"""
SAMPLED = """
SELECT tablename || '.' || attname FROM pg_stats
WHERE schemaname = 'whereby_trigger' AND attname = ANY ($1::text[]) AND tablename || attname <> 'webhooksreason'
"""


async def test_the_samples_of_what_people_said_are_dropped_without_writing_a_table_again(
    url: str, opened: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    up_to_this = {number: script for number, script in opening.scripts().items() if number <= 9}
    older = before(9)
    with monkeypatch.context() as patched:
        patched.setattr(opening, "scripts", lambda: older)
        patched.setattr(opening, "SCHEMA", max(older))
        store = await opened(url)
    await asyncio.gather(*(store.add(arrival(f"w{n}", body=b"said by Ada")) for n in range(50)))
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ANALYZE whereby_trigger.webhooks")
        assert await connection.fetch(SAMPLED, list(WITHOUT_SAMPLES))
        files, types = await connection.fetch(FILES), await connection.fetch(TYPES)
        with monkeypatch.context() as patched:
            # Later migrations may create tables.
            patched.setattr(opening, "scripts", lambda: up_to_this)
            patched.setattr(opening, "SCHEMA", max(up_to_this))
            assert await PostgresStore(url).migrate() == [9]
        assert (await connection.fetch(FILES), await connection.fetch(TYPES)) == (files, types)
        await connection.execute("ANALYZE")
        assert await connection.fetch(SAMPLED, list(WITHOUT_SAMPLES)) == []
    finally:
        await connection.close()
    # The replica of the version before continues.
    assert not (await store.add(arrival("after"))).duplicate


async def test_a_lease_counts_from_after_the_migration_however_long_that_takes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, migrate = 0.0, opening.migrate

    async def slowly(connection: Connection, location: str) -> list[int]:
        nonlocal waited
        waited = 60.0
        return await migrate(connection, location)

    monkeypatch.setattr(opening, "migrate", slowly)
    monkeypatch.setattr("whereby_trigger.store.postgres.store.boot_time", lambda: boot_time() + waited)
    store = PostgresStore(url, 30.0)
    await store.open(lambda: None)
    assert store.lease.deadline > boot_time() + waited
    await store.close()
