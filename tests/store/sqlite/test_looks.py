"""What is done again and again, such as a look for rooms that wait, costs no more if very many rooms are over."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from whereby_trigger.store import Bounds, RunOutcome
from whereby_trigger.store.sqlite import lease, rooms
from whereby_trigger.store.sqlite.opening import migrate_file

ME, OTHER = "a" * 32, "b" * 32
MOMENT = rooms.Moment(1000.0, "this boot", 1000.0)
BOUNDS = Bounds(60.0, 43200.0)

Look = Callable[[sqlite3.Connection], object]
LOOKS: dict[str, Look] = {
    "rooms to start": lambda connection: rooms.take(connection, ME, 10, MOMENT, 7200.0, BOUNDS),
    "rooms to end": lambda connection: rooms.stopping(connection, ME, MOMENT, BOUNDS),
    "rooms at a bound": lambda connection: rooms.waiting_at_bound(connection, MOMENT, BOUNDS, 500),
    "rooms that waited too long": lambda connection: rooms.end_old(connection, MOMENT.now, 7200.0),
    "who else owns anything": lambda connection: lease.others(connection, ME, MOMENT.now),
    "rooms of the dead": lambda connection: rooms.release(
        connection, OTHER, MOMENT.now, "it died", RunOutcome.REPLICA_DIED
    ),
}


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    migrate_file(path)
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def steps(connection: sqlite3.Connection, look: Look) -> int:
    """Return how many steps SQLite takes for a look that it has taken before."""
    look(connection)
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection.set_progress_handler(count, 1)
    try:
        look(connection)
    finally:
        connection.set_progress_handler(None, 0)
    return taken


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_rooms_that_are_over_cost_a_look_for_others_nothing(connection: sqlite3.Connection, look: Look) -> None:
    """There are as many as meetings within the retention; with 300,000 of them each look held up deliveries 0.1 s."""
    before = steps(connection, look)
    connection.executemany(
        "INSERT INTO rooms (key, url, state, asked_at, queued_at, since) VALUES (?, '', ?, 0, 0, 0)",
        ((f"acme.whereby.com/{number}", ("ended", "failed")[number % 2]) for number in range(1000)),
    )
    assert steps(connection, look) == before > 0
