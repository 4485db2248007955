"""A look costs no more if very many rooms are over, or very many webhooks wait that the looking replica has itself."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from whereby_trigger.store import Bounds, RunOutcome
from whereby_trigger.store.sqlite import lease, rooms, webhooks
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


DEAD: set[str] = {OTHER}
OF_WEBHOOKS: dict[str, Look] = {
    "webhooks of nobody": lambda connection: webhooks.take_unowned(connection, ME),
    "webhooks of the dead": lambda connection: lease.take_over_dead(
        connection, ME, MOMENT.now, 7200.0, DEAD, set(), set(), lambda: (MOMENT.boot, MOMENT.up)
    ),
    "who else owns anything": LOOKS["who else owns anything"],
    "the first of its own": lambda connection: webhooks.pending(connection, ME, 0, 5, MOMENT.now),
}


def add_pending(connection: sqlite3.Connection, count: int) -> None:
    (last,) = connection.execute("SELECT count(*) FROM webhooks").fetchone()
    connection.executemany(
        "INSERT INTO webhooks (id, type, body, received_at, queued_at, owner, state) VALUES (?, '', x'', 0, 0, ?, ?)",
        ((f"{number}", ME, "pending") for number in range(last, last + count)),
    )


@pytest.mark.parametrize("look", OF_WEBHOOKS.values(), ids=OF_WEBHOOKS.keys())
def test_what_a_replica_has_to_decide_costs_its_looks_for_more_nothing(
    connection: sqlite3.Connection, look: Look
) -> None:
    """A replay of 300,000 webhooks held up deliveries for 0.3 s, twice a second, until most were decided."""
    add_pending(connection, 10)
    before = steps(connection, look)
    add_pending(connection, 1000)
    assert steps(connection, look) == before > 0


def test_webhooks_that_others_own_or_nobody_are_found_among_very_many(connection: sqlite3.Connection) -> None:
    add_pending(connection, 1000)
    owners = {7: OTHER, 500: "c" * 32, 900: None, 901: None}
    connection.executemany("UPDATE webhooks SET owner = ? WHERE id = ?", ((who, id) for id, who in owners.items()))
    assert {owner for owner, *_ in lease.others(connection, ME, MOMENT.now)} == {OTHER, "c" * 32}
    assert webhooks.take_unowned(connection, ME) == 2
