"""Rooms in the SQLite file itself: its own checks, without the store's methods."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.arrivals import NOW, ROOM, arrival
from tests.support.rooms import ask, take_one
from whereby_trigger.store import RoomMove, RoomState, Store
from whereby_trigger.store.sqlite import SqliteStore, rooms
from whereby_trigger.store.sqlite.opening import migrate_file
from whereby_trigger.store.states import OVER, OWNED

ELSEWHERE = "acme.whereby.com/elsewhere"
OPEN = sorted(set(RoomState) - OVER)


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    migrate_file(path)
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("second", OPEN)
def test_a_room_has_one_open_entry(connection: sqlite3.Connection, state: RoomState, second: RoomState) -> None:
    insert(connection, state)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        insert(connection, second)


def test_a_room_has_any_number_of_entries_that_are_done_with(connection: sqlite3.Connection) -> None:
    for state in (*OVER, *OVER, RoomState.LIVE):
        insert(connection, state)


@pytest.mark.parametrize("state", RoomState)
def test_every_state_is_known_and_who_must_own_it(connection: sqlite3.Connection, state: RoomState) -> None:
    insert(connection, state)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        insert(connection, state, owned=state not in OWNED, key=ELSEWHERE)


@pytest.mark.parametrize("state", ["", "odd", "LIVE", None])
def test_no_other_state_is_known(connection: sqlite3.Connection, state: str | None) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(connection, state, owned=False)


@pytest.mark.anyio
async def test_pruning_forgets_however_many_rooms_there_are(connection: sqlite3.Connection, unopened: Store) -> None:
    for n in range(1100):
        insert(connection, RoomState.ENDED, key=f"acme.whereby.com/{n}")
    await unopened.open(lambda: None)
    try:
        await unopened.prune(NOW)
        assert await unopened.rooms() == []
    finally:
        await unopened.close()


@pytest.mark.anyio
async def test_a_wall_clock_that_is_set_back_holds_no_failed_room_any_longer(url: str) -> None:
    wall = NOW
    store = SqliteStore(url, wall=lambda: wall)
    await store.open(lambda: None)
    try:
        await ask(store)
        room = await take_one(store)
        assert await store.move(RoomMove(room.id, RoomState.WAITING, "restart 1 of 3", delay=5))
        assert await store.take(1) == []
        wall -= 24 * 3600
        assert [taken.attempt for taken in await store.take(1)] == [2]
    finally:
        await store.close()


@pytest.mark.anyio
async def test_a_page_of_what_was_heard_is_never_longer_than_it_takes_to_read_in_a_moment(unopened: Store) -> None:
    await unopened.open(lambda: None)
    try:
        await asyncio.gather(*(unopened.add(arrival(str(n))) for n in range(501)))
        heard = await unopened.webhooks_after(0, frozenset({ROOM}))
        assert (len(heard.webhooks), heard.more) == (500, True)
        assert len((await unopened.webhooks_after(heard.cursor, frozenset({ROOM}))).webhooks) == 1
    finally:
        await unopened.close()


def test_what_ended_a_rooms_sessions_is_found_without_reading_its_other_webhooks(
    connection: sqlite3.Connection,
) -> None:
    plan = connection.execute(f"EXPLAIN QUERY PLAN {rooms.SESSION_CHANGES}", (ROOM,)).fetchall()
    assert ["webhooks_sessions" in step[-1] for step in plan] == [True]


def insert(connection: sqlite3.Connection, state: str | None, *, owned: bool | None = None, key: str = ROOM) -> None:
    """Insert a room directly; by default it has an owner if its state requires one."""
    owner = "somebody" if (state in OWNED if owned is None else owned) else None
    connection.execute(
        "INSERT INTO rooms (key, url, state, owner, asked_at, queued_at, since) VALUES (?, ?, ?, ?, 0, 0, 0)",
        (key, f"https://{key}", state, owner),
    )
