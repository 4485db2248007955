"""Rooms in the database itself: its own checks, without the store's methods, agree with the table of states."""

import asyncio
import re

import pytest

from tests.support.arrivals import ROOM
from tests.support.postgres import Server, ServerFailed, database_of
from whereby_trigger.store import RoomState, State
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.states import OVER, OWNED

ELSEWHERE = "acme.whereby.com/elsewhere"
OPEN = sorted(set(RoomState) - OVER)


@pytest.fixture
def database(postgres: Server, url: str) -> str:
    asyncio.run(PostgresStore(url).migrate())
    return database_of(url)


@pytest.mark.parametrize("state", RoomState)
def test_every_state_is_known_and_who_must_own_it(postgres: Server, database: str, state: RoomState) -> None:
    insert(postgres, database, state)
    with pytest.raises(ServerFailed, match="check constraint"):
        insert(postgres, database, state, owned=state not in OWNED, key=ELSEWHERE)


@pytest.mark.parametrize("state", ["", "odd", "LIVE"])
def test_no_other_state_is_known(postgres: Server, database: str, state: str) -> None:
    with pytest.raises(ServerFailed, match="check constraint"):
        insert(postgres, database, state, owned=False)


def test_a_room_has_one_open_entry_and_any_number_that_are_done_with(postgres: Server, database: str) -> None:
    for state in (*OVER, *OVER, RoomState.LIVE):
        insert(postgres, database, state)
    for state in OPEN:
        with pytest.raises(ServerFailed, match="rooms_open"):
            insert(postgres, database, state)


def test_the_check_on_a_webhooks_state_names_every_state(postgres: Server, database: str) -> None:
    checks = postgres.run(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'whereby_trigger.webhooks'::regclass AND conname = 'webhooks_state_check'",
        database,
    )
    assert sorted(re.findall(r"'(\w+)'", checks)) == sorted(State)


def insert(postgres: Server, database: str, state: str, *, owned: bool | None = None, key: str = ROOM) -> None:
    """Insert a room directly; by default it has an owner if its state requires one."""
    owner = "'somebody'" if (state in OWNED if owned is None else owned) else "NULL"
    columns = "(key, url, state, owner, asked_at)"
    postgres.run(
        f"INSERT INTO whereby_trigger.rooms {columns} VALUES ('{key}', '', '{state}', {owner}, 0)",
        database,
    )
