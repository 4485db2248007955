"""Rooms in the SQLite file itself: what its own checks hold, past every verb."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.arrivals import NOW, ROOM
from whereby_trigger.store import RoomState, Store
from whereby_trigger.store.sqlite import opening
from whereby_trigger.store.states import OVER, OWNED

ELSEWHERE = "acme.whereby.com/elsewhere"
OPEN = sorted(set(RoomState) - OVER)


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    opening.bring_up(path)
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


def insert(connection: sqlite3.Connection, state: str | None, *, owned: bool | None = None, key: str = ROOM) -> None:
    """Write a room as it is, owned by somebody unless told otherwise where its state says so."""
    owner = "somebody" if (state in OWNED if owned is None else owned) else None
    connection.execute(
        "INSERT INTO rooms (key, url, state, owner, asked_at, queued_at, since) VALUES (?, ?, ?, ?, 0, 0, 0)",
        (key, f"https://{key}", state, owner),
    )
