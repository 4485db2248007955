"""Mutations of our own code, each of which breaks a promise: applied to a process whose environment names one.

As a pytest plugin (`-p reliability.mutants`) the module mutates the test run itself; the receiver mutates itself.
Source: the code of each mutant is what a careless edit would leave behind.
"""

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from reliability.mutant import VARIABLE, Mutant, edited, replace
from reliability.mutants_in_postgres import IN_POSTGRES
from reliability.mutants_of_rooms import OF_ROOMS
from whereby_trigger.decide import Dispatcher, Emitter
from whereby_trigger.store import Added, Arrival, State
from whereby_trigger.store.sqlite import SqliteStore, connection, opening, store, webhooks
from whereby_trigger.store.sqlite.lock import Life


def apply_from_environment() -> None:
    """Apply the mutant that the environment names, if any."""
    if name := os.environ.get(VARIABLE):
        MUTANTS[name].put_in()


def pytest_configure() -> None:
    apply_from_environment()


def _without_fsync() -> None:
    original = connection.make_durable

    def make_durable(connection: sqlite3.Connection, path: Path, *, synced: bool = True) -> None:
        original(connection, path, synced=synced)
        connection.execute("PRAGMA synchronous = OFF")

    replace(opening, "make_durable", make_durable)


def _without_unique_index() -> None:
    original = opening.scripts
    changed = {number: sql.replace("NOT NULL UNIQUE", "NOT NULL") for number, sql in original().items()}
    replace(opening, "scripts", lambda: changed)
    webhooks.INSERT = edited(webhooks.INSERT, "ON CONFLICT (id) DO NOTHING", "")


def _answer_before_commit() -> None:
    original = SqliteStore.add

    def add(self: SqliteStore, arrival: Arrival) -> Any:
        original(self, arrival)  # type: ignore[unused-awaitable]
        answered: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        answered.set_result(Added(0, True, State.PENDING))
        return answered

    replace(SqliteStore, "add", add)


def _without_owner_check() -> None:
    webhooks.DECIDE = edited(webhooks.DECIDE, "AND owner = ?", "AND ? <> ''")


def _without_life_lock() -> None:
    replace(store, "life_of", lambda database, replica: Life.DEAD)


def _prune_pending() -> None:
    webhooks.FORGET = edited(webhooks.FORGET, "state <> 'pending' AND", "")


def _replay_pending() -> None:
    def replay(connection: sqlite3.Connection, query: Any, now: float) -> list[str]:
        return [id for (id,) in connection.execute(f"{webhooks.REPLAY} RETURNING id", (now,)).fetchall()]

    webhooks.replay = replay


def _without_blame() -> None:
    uncounted = edited(webhooks.BEGIN_ATTEMPT, "attempts + 1", "attempts")
    webhooks.BEGIN_ATTEMPT = edited(uncounted, "RETURNING attempts", "RETURNING attempts + 1")


def _without_counting_takeovers() -> None:
    webhooks.TAKE_ORPHANED = edited(webhooks.TAKE_ORPHANED, ", takeovers = takeovers + 1", "")


def _listeners_after_the_decision() -> None:
    emit_at_once, committed = Emitter.emit, Dispatcher._committed
    waiting: deque[Callable[[], Awaitable[bool]]] = deque()
    begun: set[asyncio.Future[bool]] = set()

    async def emit(self: Emitter, event: str, *arguments: Any) -> bool:
        waiting.append(partial(emit_at_once, self, event, *arguments))
        return bool(self.listeners(event))

    def emit_later(self: Dispatcher, *arguments: Any) -> None:
        committed(self, *arguments)
        # Later by a number of commits: how long one takes depends on the machine.
        if len(waiting) > COMMITS_LATER:
            begun.add(asyncio.ensure_future(waiting.popleft()()))

    replace(Emitter, "emit", emit)
    replace(Dispatcher, "_committed", emit_later)


COMMITS_LATER = 20

POWER_LOSS = "tests/reliability/test_power_loss.py::test_no_200_leaves_before_its_webhook_is_on_disk"
BOUNDARY = "tests/reliability/test_kills.py::test_all_holds_at_a_boundary[sqlite-{}]"

OF_WEBHOOKS: Mapping[str, Mutant] = {
    "without fsync": Mutant(_without_fsync, POWER_LOSS, "before their webhook was on disk"),
    "without the unique index": Mutant(
        _without_unique_index,
        "tests/reliability/test_kills.py::test_all_holds_under_load[sqlite]",
        "stored more than once",
    ),
    "200 before the commit": Mutant(
        _answer_before_commit,
        "tests/reliability/test_disk_full.py",
        "while the disk is full was 200, not 503",
    ),
    "decide without the owner check": Mutant(
        _without_owner_check,
        "tests/store/test_decide.py::test_only_its_owner_decides_a_webhook[sqlite]",
    ),
    "claim from a live replica": Mutant(
        _without_life_lock,
        "tests/store/test_take_over.py::test_nothing_of_a_live_process_is_claimed[sqlite]",
    ),
    "prune what is pending": Mutant(
        _prune_pending,
        "tests/store/test_prune.py::test_a_pending_webhook_is_never_forgotten_however_old[sqlite]",
    ),
    "replay what is pending": Mutant(
        _replay_pending,
        "tests/store/test_replay.py::test_a_replay_never_touches_what_is_pending[sqlite]",
    ),
    "without blame": Mutant(
        _without_blame,
        "tests/reliability/test_poison.py::test_a_webhook_that_kills_the_process_is_parked[sqlite]",
        "the dying goes on",
    ),
    "without counting takeovers": Mutant(
        _without_counting_takeovers,
        BOUNDARY.format("after emit"),
        "emitted again without counting the attempt",
    ),
    "listeners called after the decision": Mutant(
        _listeners_after_the_decision,
        BOUNDARY.format("after decide"),
        "to be emitted, but never heard of",
    ),
}

MUTANTS: Mapping[str, Mutant] = {**OF_WEBHOOKS, **OF_ROOMS, **IN_POSTGRES}
