"""Mutations of our own code, each of which breaks a promise: applied to a process whose environment names one.

As a pytest plugin (`-p reliability.mutants`) the module mutates the test run itself; the receiver mutates itself.
Source: the code of each mutant is what a careless edit would leave behind.
"""

import asyncio
import os
import sqlite3
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from reliability.conditions import MUTANT
from whereby_trigger import leftovers
from whereby_trigger.assist import process
from whereby_trigger.assist.runners import Run
from whereby_trigger.decide import Dispatcher, Emitter
from whereby_trigger.fence import Fence
from whereby_trigger.store import Added, Arrival, RoomState, SessionChange, State, room_rules
from whereby_trigger.store.postgres import PostgresStore, writer
from whereby_trigger.store.postgres import connection as postgres_connection
from whereby_trigger.store.postgres import lease as postgres_lease
from whereby_trigger.store.postgres import opening as postgres_opening
from whereby_trigger.store.postgres import rooms as postgres_rooms
from whereby_trigger.store.postgres import webhooks as postgres_webhooks
from whereby_trigger.store.records import RoomRequest
from whereby_trigger.store.room_rules import RULES, Change, OpenRoom, RoomEvent
from whereby_trigger.store.sqlite import SqliteStore, connection, lease, opening, rooms, store, webhooks
from whereby_trigger.store.sqlite.lock import Life


class Mutant(Struct, frozen=True):
    """Describe a mutation: how it is applied, and the test of this suite that must fail with it."""

    put_in: Callable[[], None]
    caught_by: str
    complaint: str = "assert "
    """A text that the failing test must print: proof that it fails for the right reason."""


def apply_from_environment() -> None:
    """Apply the mutant that the environment names, if any."""
    if name := os.environ.get(MUTANT):
        MUTANTS[name].put_in()


def pytest_configure() -> None:
    apply_from_environment()


def replace(owner: Any, name: str, value: Any) -> None:
    """Replace an existing attribute."""
    getattr(owner, name)
    setattr(owner, name, value)


def edit(owner: Any, name: str, old: str, new: str) -> None:
    """Replace a text in a statement, which must contain it."""
    replace(owner, name, edited(getattr(owner, name), old, new))


def edited(text: str, old: str, new: str) -> str:
    """Return a text with a part replaced, which it must contain."""
    if old not in text:
        raise ValueError(f"the mutation has nothing to change: {old!r} is not in {text!r}")
    return text.replace(old, new)


def edit_schema(module: Any, old: str, new: str) -> None:
    """Replace a text in the scripts of a store's schema, one of which must contain it."""
    scripts = module.scripts()
    edited("".join(scripts.values()), old, new)
    changed = {number: script.replace(old, new) for number, script in scripts.items()}
    replace(module, "scripts", lambda: changed)


def _without_fsync() -> None:
    original = connection.make_durable

    def make_durable(connection: sqlite3.Connection, path: Path, *, synced: bool = True) -> None:
        original(connection, path, synced=synced)
        connection.execute("PRAGMA synchronous = OFF")

    replace(opening, "make_durable", make_durable)


def _stored_more_than_once() -> None:
    edit_schema(opening, "NOT NULL UNIQUE", "NOT NULL")
    edit(webhooks, "INSERT", "ON CONFLICT (id) DO NOTHING", "")


def _answer_before_commit() -> None:
    original = SqliteStore.add

    def add(self: SqliteStore, arrival: Arrival) -> Any:
        original(self, arrival)  # type: ignore[unused-awaitable]
        answered: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        answered.set_result(Added(0, True, State.PENDING))
        return answered

    replace(SqliteStore, "add", add)


def _replay_pending() -> None:
    def replay(connection: sqlite3.Connection, query: Any, now: float) -> list[str]:
        return [id for (id,) in connection.execute(f"{webhooks.REPLAY} RETURNING id", (now,)).fetchall()]

    webhooks.replay = replay


def _without_blame() -> None:
    uncounted = edited(webhooks.BEGIN_ATTEMPT, "attempts + 1", "attempts")
    webhooks.BEGIN_ATTEMPT = edited(uncounted, "RETURNING attempts", "RETURNING attempts + 1")


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
UNDISTURBED = "tests/reliability/test_kills.py::test_all_holds_under_load[{}]"
BOUNDARY = "tests/reliability/test_kills.py::test_all_holds_at_a_boundary[{}-{}]"
STORE = "tests/store/{}[{}]"
ROOMS = "tests/store/test_rooms.py::{}"
NEWEST_SERVED = (
    "tests/store/test_meetings.py::test_the_newest_meeting_is_served_whatever_becomes_of_the_webhooks[rules]"
)

OF_WEBHOOKS: Mapping[str, Mutant] = {
    "without fsync": Mutant(_without_fsync, POWER_LOSS, "before their webhook was on disk"),
    "without the unique index": Mutant(_stored_more_than_once, UNDISTURBED.format("sqlite"), "stored more than once"),
    "200 before the commit": Mutant(
        _answer_before_commit, "tests/reliability/test_disk_full.py", "while the disk is full was 200, not 503"
    ),
    "decide without the owner check": Mutant(
        partial(edit, webhooks, "DECIDE", "AND owner = ?", "AND ? <> ''"),
        STORE.format("test_decide.py::test_only_its_owner_decides_a_webhook", "sqlite"),
    ),
    "claim from a live replica": Mutant(
        partial(replace, store, "life_of", lambda database, replica: Life.DEAD),
        STORE.format("test_take_over.py::test_nothing_of_a_live_process_is_claimed", "sqlite"),
    ),
    "prune what is pending": Mutant(
        partial(edit, webhooks, "FORGET", "state <> 'pending' AND", ""),
        STORE.format("test_prune.py::test_a_pending_webhook_is_never_forgotten_however_old", "sqlite"),
    ),
    "replay what is pending": Mutant(
        _replay_pending, STORE.format("test_replay.py::test_a_replay_never_touches_what_is_pending", "sqlite")
    ),
    "without blame": Mutant(
        _without_blame,
        "tests/reliability/test_poison.py::test_a_webhook_that_kills_the_process_is_parked[sqlite]",
        "the dying goes on",
    ),
    "without counting takeovers": Mutant(
        partial(edit, webhooks, "TAKE_ORPHANED", ", takeovers = takeovers + 1", ""),
        BOUNDARY.format("sqlite", "after emit"),
        "emitted again without counting the attempt",
    ),
    "listeners called after the decision": Mutant(
        _listeners_after_the_decision, BOUNDARY.format("sqlite", "after decide"), "to be emitted, but never heard of"
    ),
}


def _without_session_id_match() -> None:
    def ends(self: SessionChange, session_id: str | None, asked_at: float) -> bool:
        return self.created_at is None or self.created_at > asked_at

    replace(SessionChange, "ends", ends)


def _without_the_request_to_stop() -> None:
    original = room_rules.moved

    def moved(entry: OpenRoom, state: RoomState, reason: str) -> Change | None:
        return original(entry._replace(stop=None), state, reason)

    replace(room_rules, "moved", moved)


def _without_the_end_by_the_next_session() -> None:
    """Keep an assistant from one meeting in the next, unless a start shows that it is another session."""
    later = RULES[RoomEvent.REQUESTED_LATER]
    replace(room_rules, "RULES", {**RULES, RoomEvent.REQUESTED_BY_NEXT: later})


def _without_successors_of_a_live_room() -> None:
    kept = {RoomState.ENDING: RULES[RoomEvent.REQUESTED_LATER][RoomState.ENDING]}
    replace(room_rules, "RULES", {**RULES, RoomEvent.REQUESTED_LATER: kept})


def _without_the_order_of_sessions() -> None:
    """Treat a late success of an older meeting as one of a newer meeting."""
    original = room_rules.meets

    def meets(entry: OpenRoom, request: RoomRequest, changes: Sequence[SessionChange] = ()) -> RoomEvent | None:
        return original(entry, request, changes) or RoomEvent.REQUESTED_BY_NEXT

    replace(room_rules, "meets", meets)


def _cut_off_again_and_again() -> None:
    def cut_off(self: Run, reason: str) -> None:
        self.hand_over(reason)
        launched: Any = self.launched
        launched.cancel()

    replace(Run, "cut_off", cut_off)


def _without_the_guards_deadline() -> None:
    """Stop the guard from ending an assistant whose supervisor has been silent until the deadline."""
    kept = Path(tempfile.mkdtemp(prefix="whereby-trigger-mutant-")) / "guard.py"
    source = process.GUARD.read_text(encoding="utf-8")
    kept.write_text(edited(source, "if now >= self._deadline - self._notice:", "if False:"), encoding="utf-8")
    process.GUARD = kept


OF_ROOMS: Mapping[str, Mutant] = {
    "rooms without the unique index": Mutant(
        partial(edit_schema, opening, "CREATE UNIQUE INDEX rooms_open", "CREATE INDEX rooms_open"),
        "tests/store/sqlite/test_rooms.py::test_a_room_has_one_open_entry",
        "DID NOT RAISE",
    ),
    "rooms without the owner check": Mutant(
        partial(edit, rooms, "FIND_OWNED", "AND owner = ?", "AND ? <> ''"),
        ROOMS.format("test_a_replica_that_does_not_own_a_room_changes_nothing[sqlite-ended-live]"),
        "assert not True",
    ),
    "sessions without their ids": Mutant(
        _without_session_id_match,
        "tests/store/test_sessions.py::"
        "test_a_sessions_end_asks_the_assistant_of_that_session_to_end[sqlite-another id]",
    ),
    "without the self-stop": Mutant(
        partial(replace, Fence, "_endangered", lambda fence: None),
        "tests/assist/test_self_fencing.py::test_while_the_store_is_away_assistants_leave_before_the_deadline_and_come_back_with_it",
        "it left after the deadline",
    ),
    "without the guard": Mutant(
        _without_the_guards_deadline,
        "tests/assist/test_guard.py::test_a_stops_grace_does_not_outlast_the_deadline",
    ),
    "without the search for what a guard left": Mutant(
        partial(replace, leftovers, "sweep", lambda whose=(): iter(())),
        # Every trigger on the machine ends what a killed guard left. This test freezes its guard instead: others leave
        # it alone.
        "tests/assist/test_leftovers.py::"
        "test_what_has_a_frozen_guard_is_left_alone_unless_its_replica_is_known_to_be_dead",
        "not in time",
    ),
    "rooms taken without a lease": Mutant(
        partial(replace, lease, "holds", lambda *_: True),
        STORE.format("test_leases.py::test_a_replica_whose_lease_has_run_out_takes_no_room", "sqlite"),
    ),
    "started again though asked to end": Mutant(
        _without_the_request_to_stop,
        ROOMS.format("test_a_room_that_is_to_wait_again_but_was_asked_to_end_has_ended[sqlite]"),
    ),
    "an assistant that goes on into the next meeting": Mutant(
        _without_the_end_by_the_next_session, NEWEST_SERVED, "is over"
    ),
    "without successors of a live room": Mutant(
        _without_successors_of_a_live_room, NEWEST_SERVED, "the newest meeting is not served"
    ),
    "sessions without their order": Mutant(_without_the_order_of_sessions, NEWEST_SERVED),
    "without learning a session": Mutant(
        partial(replace, room_rules, "are_two", lambda sessions: False),
        "tests/store/test_meetings.py::test_of_meetings_that_follow_each_other_the_right_one_is_served[rules]",
    ),
    "cut off again and again": Mutant(
        _cut_off_again_and_again,
        "tests/assist/test_hand_over.py::test_one_that_clings_to_its_room_however_often_it_is_cut_off_keeps_the_room",
        "given up with the assistant still in it",
    ),
}


CLOCK = "whereby_trigger.clock()"


def _stored_more_than_once_in_postgres() -> None:
    edit_schema(postgres_opening, "NOT NULL UNIQUE", "NOT NULL")
    counted = """
ON CONFLICT (id) DO UPDATE SET
    deliveries = webhooks.deliveries + excluded.deliveries,
    kept_until = greatest(webhooks.kept_until, excluded.kept_until)"""
    edit(postgres_webhooks, "ADD", counted, "")
    added = {number: edited(sql, counted, "") for number, sql in postgres_webhooks.ADD_COUNTED.items()}
    replace(postgres_webhooks, "ADD_COUNTED", added)
    replace(postgres_webhooks._insert, "__defaults__", (postgres_webhooks.ADD,))


def _answer_before_commit_in_postgres() -> None:
    original = PostgresStore.add

    def add(self: PostgresStore, arrival: Arrival) -> Any:
        asyncio.ensure_future(original(self, arrival)).add_done_callback(asyncio.Future.exception)
        answered: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        answered.set_result(Added(0, True, State.PENDING))
        return answered

    replace(PostgresStore, "add", add)


def _without_expiry() -> None:
    expired = edited(postgres_lease.EXPIRED, f"AND expires <= {CLOCK}", "")
    for name in ("EXPIRED_NOW", "EXPIRED_OF", "EXPIRED_AND_LOCKED", "ANYTHING_LEFT"):
        edit(postgres_lease, name, postgres_lease.EXPIRED, expired)


def _forgetting_lost_answers() -> None:
    async def nothing(*_: Any) -> dict[str, Any]:
        return {}

    replace(postgres_webhooks, "_stored_before", nothing)


IN_POSTGRES: Mapping[str, Mutant] = {
    "PostgreSQL: without the unique index": Mutant(
        _stored_more_than_once_in_postgres, UNDISTURBED.format("postgresql"), "stored more than once"
    ),
    "PostgreSQL: 200 before the commit": Mutant(
        _answer_before_commit_in_postgres,
        "tests/reliability/test_kills.py::test_nothing_acknowledged_is_lost_and_nothing_decided_twice[postgresql]",
        "acknowledged, but not stored",
    ),
    "PostgreSQL: decide without the owner check": Mutant(
        partial(edit, postgres_webhooks, "DECIDE", "AND webhooks.owner = given.owner", ""),
        STORE.format("test_decide.py::test_only_its_owner_decides_a_webhook", "postgresql"),
    ),
    "PostgreSQL: claim from a live replica": Mutant(
        _without_expiry, STORE.format("test_take_over.py::test_nothing_of_a_live_replica_is_claimed", "postgresql")
    ),
    "PostgreSQL: an expired lease renewed": Mutant(
        partial(edit, postgres_lease, "RENEW", f"AND expires > {CLOCK}", ""),
        STORE.format("test_leases.py::test_a_lease_that_has_run_out_is_not_renewed", "postgresql"),
    ),
    "PostgreSQL: without counting takeovers": Mutant(
        partial(edit, postgres_lease, "TAKE_ORPHANED", ", takeovers = takeovers + 1", ""),
        BOUNDARY.format("postgresql", "after emit"),
        "emitted again without counting the attempt",
    ),
    "PostgreSQL: prune what is pending": Mutant(
        partial(edit, postgres_webhooks, "PRUNE", "state <> 'pending' AND ", ""),
        STORE.format("test_prune.py::test_a_pending_webhook_is_never_forgotten_however_old", "postgresql"),
    ),
    "PostgreSQL: a lost answer forgotten": Mutant(
        _forgetting_lost_answers,
        "tests/store/postgres/test_lost_answers.py::test_an_arrival_is_no_duplicate_of_itself",
    ),
    "PostgreSQL: rooms taken without a lease": Mutant(
        partial(edit, postgres_rooms, "TAKE", f"WHERE id = $1 AND expires > {CLOCK}", "WHERE id = $1"),
        STORE.format("test_leases.py::test_a_replica_whose_lease_has_run_out_takes_no_room", "postgresql"),
    ),
    "PostgreSQL: rooms without the owner check": Mutant(
        partial(edit, postgres_rooms, "FIND_OWNED", "AND owner = $2", "AND $2 <> ''"),
        ROOMS.format("test_a_replica_that_does_not_own_a_room_changes_nothing[postgresql-ended-live]"),
        "assert not True",
    ),
    "PostgreSQL: synchronous_commit unread": Mutant(
        partial(edit, postgres_opening, "FACTS", "current_setting('synchronous_commit')", "'on'"),
        "tests/reliability/test_unsafe_settings.py::"
        "test_a_database_that_does_not_wait_for_the_disk_is_refused[synchronous_commit=off]",
        "it is taken",
    ),
    "PostgreSQL: synchronous_commit not pinned": Mutant(
        partial(replace, postgres_connection, "PINNED", ""),
        "tests/store/postgres/test_reloaded.py::"
        "test_a_crash_loses_nothing_acknowledged_though_synchronous_commit_was_turned_off_meanwhile[?pooler=yes]",
    ),
    "PostgreSQL: a read-only connection kept": Mutant(
        partial(replace, postgres_connection, "leaves_connection_usable", lambda error: True),
        "tests/store/postgres/test_read_only.py::"
        "test_a_replica_goes_on_by_itself_once_its_database_is_no_longer_read_only[?pooler=yes]",
    ),
    "PostgreSQL: one row holds up its batch": Mutant(
        partial(replace, writer, "is_contention", lambda error: False),
        "tests/store/postgres/test_locked_rows.py::test_a_duplicate_of_a_locked_webhook_holds_up_no_other_delivery",
    ),
}

MUTANTS: Mapping[str, Mutant] = {**OF_WEBHOOKS, **OF_ROOMS, **IN_POSTGRES}
