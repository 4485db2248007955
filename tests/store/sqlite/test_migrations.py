"""Migrations: one after another, each whole or not at all, and by one process at a time."""

import asyncio
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.arrivals import arrival, decided, decision, held, record
from tests.support.process import Process
from tests.support.replica import ROOT
from whereby_trigger.clock import boot_time
from whereby_trigger.errors import StoreError
from whereby_trigger.store import State
from whereby_trigger.store.sqlite import SqliteStore, lease, opening

pytestmark = pytest.mark.anyio

REAL = opening.scripts()
NEXT = opening.SCHEMA + 1


def schema_of(path: Path) -> tuple[int, list[str]]:
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%'")]
    (number,) = connection.execute("SELECT schema FROM version").fetchone() if "version" in tables else (0,)
    connection.close()
    return number, sorted(tables)


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert sorted(REAL) == list(range(1, opening.SCHEMA + 1))


OLD = {number: REAL[number] for number in REAL if number < 5}
"""The migrations of the versions without held webhooks."""


async def test_the_checks_are_widened_in_a_file_that_is_in_use_and_it_stays_intact(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(opening, "scripts", lambda: OLD)
        patched.setattr(opening, "SCHEMA", max(OLD))
        patched.setattr(lease, "begin_replica", lambda *_: None)
        older = SqliteStore(f"sqlite:///{path}")
        await older.open(lambda: None)
    await older.add(arrival("a"))
    await decided(older, "b")
    reading = sqlite3.connect(path, isolation_level=None)
    assert reading.execute("SELECT count(*) FROM webhooks").fetchone() == (2,)
    newer = SqliteStore(f"sqlite:///{path}")
    await newer.open(lambda: None)
    await held(newer, "c")
    # The connections from before read the schema again: both checks are wider for them, too, and no wider than meant.
    assert reading.execute("SELECT count(*) FROM webhooks WHERE state = 'held'").fetchone() == (1,)
    reading.execute("UPDATE webhooks SET state = 'held', due_at = 1 WHERE id = 'a'")
    for wrong in ("state = 'odd'", "state = 'fired'", "decided_at = 1"):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            reading.execute(f"UPDATE webhooks SET {wrong} WHERE id = 'c'")
    assert (await older.add(arrival("d"))).duplicate is False
    assert await older.decide(decision((await older.add(arrival("e"))).seq, "e"))
    reading.close()
    await older.close()
    await newer.close()
    checking = sqlite3.connect(path)
    assert checking.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert checking.execute("PRAGMA writable_schema").fetchone() == (0,)
    checking.close()


def test_the_states_that_the_schema_allows_are_the_states_there_are(path: Path) -> None:
    asyncio.run(SqliteStore(f"sqlite:///{path}").migrate())
    connection = sqlite3.connect(path)
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'webhooks'").fetchone()
    connection.close()
    (allowed,) = re.findall(r"NOT NULL CHECK \(([^)]*)\)", sql)
    assert set(re.findall(r"state = '(\w+)'", allowed)) == set(State)


async def test_a_database_of_every_older_schema_is_brought_up_one_by_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in range(1, opening.SCHEMA + 1):
        monkeypatch.setattr(opening, "scripts", lambda known=known: {n: REAL[n] for n in range(1, known + 1)})
        assert await SqliteStore(f"sqlite:///{path}").migrate() == [known]
        assert schema_of(path)[0] == known


async def test_a_newer_program_brings_the_store_up_and_keeps_what_is_in_it(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = SqliteStore(url)
    await older.open(lambda: None)
    await decided(older, "a", State.SKIPPED)
    monkeypatch.setattr(opening, "SCHEMA", NEXT)
    monkeypatch.setattr(opening, "scripts", lambda: REAL | {NEXT: "ALTER TABLE webhooks ADD COLUMN newer TEXT"})
    with pytest.raises(StoreError, match=f"is at schema {NEXT - 1}, this program reads {NEXT}: run .*db migrate"):
        await SqliteStore(url).open_readonly()
    newer = SqliteStore(url)
    await newer.open(lambda: None)
    assert schema_of(path)[0] == NEXT
    assert (await record(newer, "a")).state is State.SKIPPED
    await decided(older, "b")
    assert (await record(newer, "b")).state is State.FIRED
    await older.close()
    await newer.close()


async def test_a_migration_that_fails_half_way_leaves_the_old_schema_and_the_store_usable(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    await decided(store, "a")
    await store.close()
    before = schema_of(path)
    with monkeypatch.context() as patched:
        broken = "CREATE TABLE half (x); DELETE FROM webhooks; INSERT INTO nowhere VALUES (1); CREATE TABLE whole (x)"
        patched.setattr(opening, "scripts", lambda: REAL | {NEXT: broken})
        with pytest.raises(StoreError, match="nowhere"):
            await SqliteStore(url).open(lambda: None)
    assert schema_of(path) == before
    again = SqliteStore(url)
    await again.open(lambda: None)
    assert (await record(again, "a")).state is State.FIRED
    await again.close()


KILLED = """
import asyncio, os, signal, sys
from whereby_trigger.store.sqlite import SqliteStore, opening
scripts, connect = opening.scripts(), opening.connect

def deadly(*arguments, **keywords):
    connection = connect(*arguments, **keywords)
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return connection

opening.connect = deadly
half = "CREATE TABLE half (x); DELETE FROM webhooks; SELECT die(); CREATE TABLE whole (x)"
opening.scripts = lambda: scripts | {opening.SCHEMA + 1: half}
asyncio.run(SqliteStore(sys.argv[1]).migrate())
"""


async def test_a_kill_in_the_middle_of_a_migration_leaves_the_old_schema(url: str, path: Path) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    await decided(store, "a")
    await store.close()
    before = schema_of(path)
    with Process([sys.executable, "-c", KILLED, url], cwd=ROOT) as killed:
        assert killed.wait() == -9, killed.output
    assert schema_of(path) == before
    again = SqliteStore(url)
    await again.open(lambda: None)
    assert (await record(again, "a")).state is State.FIRED
    await again.close()


OPENING = """
import asyncio, sys
from whereby_trigger.store import Arrival
from whereby_trigger.store.sqlite import SqliteStore

async def main(folder, id, count):
    for n in range(int(count)):
        store = SqliteStore(f"sqlite:///{folder}/{n}.db")
        await store.open(lambda: None)
        await store.add(Arrival(id, "", None, b"", 0.0))
        await store.close()

print("ready", flush=True)
asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_open_a_new_file_at_once_all_get_it(tmp_path: Path) -> None:
    processes = [Process([sys.executable, "-c", OPENING, str(tmp_path), str(n), "30"], cwd=ROOT) for n in range(3)]
    try:
        outcomes = [(process.wait(), process.output) for process in processes]
    finally:
        for process in processes:
            process.__exit__(None, None, None)
    assert outcomes == [(0, "ready\n")] * 3
    for n in range(30):
        connection = sqlite3.connect(tmp_path / f"{n}.db")
        assert connection.execute("SELECT count(*), sum(deliveries) FROM webhooks").fetchone() == (3, 3)
        connection.close()


async def test_a_lease_counts_from_after_the_migration_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0.0

    def slowly(path: Path, replica: str, join: Callable[[sqlite3.Connection], None], synced: bool) -> opening.Entered:
        nonlocal waited
        waited = 60.0
        return opening.open_to_write(path, replica, join, synced)

    monkeypatch.setattr("whereby_trigger.store.sqlite.store.open_to_write", slowly)
    monkeypatch.setattr("whereby_trigger.store.sqlite.store.boot_time", lambda: boot_time() + waited)
    store = SqliteStore(f"sqlite:///{tmp_path}/webhooks.db", 30.0)
    await store.open(lambda: None)
    assert store.lease.deadline > boot_time() + waited
    await store.close()
