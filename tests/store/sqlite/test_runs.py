"""Runs in the SQLite file: read by an index, and taken over from what a store of an older schema kept with a room."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.rooms import ask, move, take_one
from whereby_trigger.store import RoomQuery, RoomState, RunOutcome, RunQuery
from whereby_trigger.store.sqlite import SqliteStore, history, opening, rooms
from whereby_trigger.store.sqlite.opening import migrate_file

KEY = "acme.whereby.com/visit-1"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    migrate_file(path)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def plan(connection: sqlite3.Connection, statement: str, values: Any) -> str:
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    return "\n".join(row[-1] for row in rows)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RunQuery(entry=1), "runs_entry"),
        (RunQuery(room=KEY, limit=50), "runs_room"),
        (RunQuery(room="/visit-1", limit=50), "runs_room"),
        (RunQuery(since=1.0, until=2.0, limit=50), "runs_started"),
    ],
)
def test_runs_are_read_by_an_index_in_their_order(connection: sqlite3.Connection, query: RunQuery, index: str) -> None:
    found = plan(connection, *history.select_runs(query))
    assert index in found
    assert query.entry or "TEMP B-TREE" not in found


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (RoomQuery(room=KEY, limit=50), "rooms_name"),
        (RoomQuery(room="/visit-1", limit=50), "rooms_name"),
        (RoomQuery(id=1), "PRIMARY KEY"),
        (RoomQuery(webhooks=("w",)), "rooms_webhook"),
        (RoomQuery(limit=50), "SCAN rooms"),
        (RoomQuery(since=1.0, until=2.0, limit=50), "rooms_asked"),
        (RoomQuery(since=1.0, limit=50), "rooms_asked"),
        (RoomQuery(open=True), "rooms_asked"),
        (RoomQuery(state=RoomState.WAITING, limit=50), "rooms_asked"),
        (RoomQuery(open=True, since=1.0, until=2.0), "rooms_asked"),
        (RoomQuery(open=True, room=KEY), "rooms_"),
    ],
)
def test_entries_are_read_by_an_index_and_all_of_them_in_order(
    connection: sqlite3.Connection, query: RoomQuery, index: str
) -> None:
    found = plan(connection, *rooms.select(query))
    assert index in found
    assert query.webhooks or "TEMP B-TREE" not in found


@pytest.mark.parametrize("statement", [history.GO_LIVE, history.END_RUN])
def test_a_move_finds_its_run_by_an_index(connection: sqlite3.Connection, statement: str) -> None:
    values = dict.fromkeys(
        ("entry", "now", "pid", "outcome", "reason", "exit_code", "signal", "exception", "output"), None
    )
    assert "SCAN" not in plan(connection, statement, values)


def test_what_is_forgotten_is_found_by_an_index(connection: sqlite3.Connection) -> None:
    found = [plan(connection, one, (0.0, 500)) for one in (history.FORGET_RUNS, rooms.FORGET_RUNS, rooms.FORGET_ROOMS)]
    assert not any("SCAN" in one or "TEMP B-TREE" in one for one in found), found


OLD_ROOM = """
INSERT INTO rooms (key, url, state, owner, webhook, asked_at, queued_at, since, attempt, stop, reason, errors)
VALUES (?, '', ?, ?, 'w', 1, 10, 20, ?, ?, ?, ?)
"""
OLD = (
    ("failed", "failed", None, 4, None, "exited with 75, after 3 restarts", '["no key", "again"]'),
    ("waits", "waiting", None, 2, None, "exited with 1: restart 1 of 3", '["oh"]'),
    ("stopped", "ended", None, 1, "stopped by hand", "stopped by hand", '["leaving"]'),
    ("quiet", "ended", None, 1, None, "it left the room", "[]"),
    ("live", "live", "somebody", 1, None, "", "[]"),
)


@pytest.mark.anyio
async def test_what_a_room_of_an_older_store_kept_of_its_last_run_is_a_run(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {number: script for number, script in opening.scripts().items() if number < 7}
    with monkeypatch.context() as older:
        older.setattr(opening, "scripts", lambda: before)
        migrate_file(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(OLD_ROOM, [(f"acme.whereby.com/{name}", *values) for name, *values in OLD])
    store = SqliteStore(url)
    await store.open(lambda: None)
    try:
        found = {run.key.rpartition("/")[2]: run for run in await store.find_runs(RunQuery())}
        assert {name: (run.attempt, run.outcome, run.output) for name, run in found.items()} == {
            "failed": (4, RunOutcome.FAILED, "no key\nagain"),
            "waits": (2, RunOutcome.FAILED, "oh"),
            "stopped": (1, RunOutcome.STOPPED, "leaving"),
        }
        failed = found["failed"]
        assert (failed.reason, failed.webhook, failed.replica) == ("exited with 75, after 3 restarts", "w", None)
        assert (failed.started_at, failed.live_at, failed.ended_at) == (10, None, 20)
        (taken,) = await store.take(1)
        assert (taken.key, taken.attempt) == ("acme.whereby.com/waits", 3)
        # The owner of the live room is gone, and its run was never recorded.
        await store.take_over()
        (live,) = await store.find_rooms(RoomQuery(room="/live"))
        assert live.state is RoomState.WAITING
        assert [run.attempt for run in await store.find_runs(RunQuery(room="/live"))] == []
    finally:
        await store.close()


@pytest.mark.anyio
async def test_a_run_does_not_begin_before_the_last_one_has_ended_although_its_replica_waited_to_write(
    path: Path,
) -> None:
    one = SqliteStore(f"sqlite:///{path}", wall=lambda: 1000.0)
    waited = SqliteStore(f"sqlite:///{path}", wall=lambda: 999.9)
    await one.open(lambda: None)
    await waited.open(lambda: None)
    await ask(one)
    room = await take_one(one)
    assert await move(one, room, RoomState.WAITING)
    await take_one(waited)
    second, first = await one.find_runs(RunQuery())
    assert (first.ended_at, second.attempt, second.started_at) == (1000.0, 2, 1000.0)
    await waited.close()
    await one.close()
