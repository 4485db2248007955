"""Presence is written to the file at most once a room and transaction."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.arrivals import NOW, ROOM
from tests.support.counts import count
from whereby_trigger.store import Added, Count, State
from whereby_trigger.store.sqlite.opening import migrate_file
from whereby_trigger.store.sqlite.presence import GatheredCounts

ELSEWHERE = "acme.whereby.com/elsewhere"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    migrate_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows_written(connection: sqlite3.Connection, *counts: Count) -> int:
    gathered = GatheredCounts()
    for one in counts:
        gathered.add(one, NOW, NOW, Added(1, False, State.PENDING))
    before = connection.total_changes
    gathered.write(connection)
    return connection.total_changes - before


def test_all_counts_of_a_transaction_are_one_write_for_each_room(connection: sqlite3.Connection) -> None:
    assert rows_written(connection, *(count(n, n % 3, room=room) for n in range(9) for room in (ROOM, ELSEWHERE))) == 2
    assert rows_written(connection, count(10, 1), count(11, 2), count(10, 1, room=ELSEWHERE)) == 2


def test_a_late_count_beside_a_new_one_is_one_write_too(connection: sqlite3.Connection) -> None:
    assert rows_written(connection, count(10, 1), count(10, 1, room=ELSEWHERE)) == 2
    assert rows_written(connection, count(5, 2), count(11, 2, room=ELSEWHERE)) == 2


def test_nothing_is_written_without_a_count_or_for_one_that_changes_nothing(connection: sqlite3.Connection) -> None:
    assert rows_written(connection) == 0
    rows_written(connection, count(0, 3), count(5, 2), count(10, 1))
    assert rows_written(connection, count(4, 2)) == 0


def test_what_a_transaction_gathered_that_was_rolled_back_is_forgotten(connection: sqlite3.Connection) -> None:
    gathered = GatheredCounts()
    gathered.add(count(0, 1), NOW, NOW, Added(1, False, State.PENDING))
    gathered.begin()
    gathered.write(connection)
    assert connection.execute("SELECT * FROM presence").fetchall() == []


def since(connection: sqlite3.Connection) -> list[float]:
    return [since for (since,) in connection.execute("SELECT humans_since - ? FROM presence", (NOW,)).fetchall()]


def commit(gathered: GatheredCounts, connection: sqlite3.Connection, one: Count) -> None:
    gathered.begin()
    connection.execute("BEGIN IMMEDIATE")
    gathered.add(one, NOW, NOW, Added(1, False, State.PENDING))
    gathered.write(connection)
    connection.execute("COMMIT")
    gathered.committed()


def test_what_this_connection_wrote_is_not_read_again(connection: sqlite3.Connection) -> None:
    gathered, statements = GatheredCounts(), list[str]()
    commit(gathered, connection, count(0, 2))
    connection.set_trace_callback(statements.append)
    commit(gathered, connection, count(5, 2))
    assert not [text for text in statements if "SELECT" in text]
    assert since(connection) == [0]


def test_what_another_connection_wrote_is_read_again(path: Path, connection: sqlite3.Connection) -> None:
    one, two = GatheredCounts(), GatheredCounts()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        commit(one, connection, count(0, 2))
        commit(two, other, count(5, 1))
        commit(one, connection, count(9, 2))
        commit(two, other, count(7, 2))
    assert since(connection) == [7]


def test_what_was_rolled_back_is_read_again(connection: sqlite3.Connection) -> None:
    gathered = GatheredCounts()
    connection.execute("BEGIN")
    gathered.add(count(0, 2), NOW, NOW, Added(1, False, State.PENDING))
    gathered.write(connection)
    connection.execute("ROLLBACK")
    commit(gathered, connection, count(5, 2))
    assert since(connection) == [5]
