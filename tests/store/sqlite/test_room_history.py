"""How SQLite finds what happened in a room, beside a million other webhooks: by the index of rooms."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from whereby_trigger.store import Query
from whereby_trigger.store.sqlite import rooms, webhooks
from whereby_trigger.store.sqlite.opening import migrate_file

ROOM = "acme.whereby.com/visit-1"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    migrate_file(path)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def plan(connection: sqlite3.Connection, statement: str, values: Any) -> str:
    return "\n".join(step[-1] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))


@pytest.mark.parametrize("query", [Query(room=ROOM, limit=500), Query(room=ROOM, since=5.0, until=6.0, limit=500)])
def test_the_webhooks_of_a_room_are_found_by_its_index(connection: sqlite3.Connection, query: Query) -> None:
    selected, values = webhooks._select(query)
    found = plan(connection, f"{webhooks.FIND} {selected}", values)
    assert "webhooks_room" in found
    assert "webhooks_decided" not in found
    assert "SCAN webhooks\n" not in f"{found}\n"


def test_the_rooms_of_a_name_are_found_without_reading_all_webhooks(connection: sqlite3.Connection) -> None:
    found = plan(connection, rooms.KEYS, {"path": "/visit-1"})
    assert "SCAN webhooks" not in found
    assert "rooms_name" in found
