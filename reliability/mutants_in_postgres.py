"""Mutations of the PostgreSQL store."""

import asyncio
from collections.abc import Mapping
from typing import Any

from reliability.mutant import Mutant, edited, replace
from whereby_trigger.store import Added, Arrival, State
from whereby_trigger.store.postgres import PostgresStore, connection, lease, opening, rooms, webhooks, writer

CLOCK = "whereby_trigger.clock()"


def _without_unique_index() -> None:
    original = opening.scripts
    unique, plain = "NOT NULL UNIQUE", "NOT NULL"
    edited("".join(original().values()), unique, plain)
    replace(opening, "scripts", lambda: {n: sql.replace(unique, plain) for n, sql in original().items()})
    counted = "ON CONFLICT (id) DO UPDATE SET deliveries = webhooks.deliveries + excluded.deliveries"
    webhooks.ADD = edited(webhooks.ADD, counted, "")


def _answer_before_commit() -> None:
    original = PostgresStore.add

    def add(self: PostgresStore, arrival: Arrival) -> Any:
        asyncio.ensure_future(original(self, arrival)).add_done_callback(asyncio.Future.exception)
        answered: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        answered.set_result(Added(0, True, State.PENDING))
        return answered

    replace(PostgresStore, "add", add)


def _without_owner_check() -> None:
    webhooks.DECIDE = edited(webhooks.DECIDE, "AND webhooks.owner = given.owner", "")


def _without_expiry() -> None:
    expired = edited(lease.EXPIRED, f"AND expires <= {CLOCK}", "")
    lease.ANYTHING_LEFT = edited(lease.ANYTHING_LEFT, lease.EXPIRED, expired)
    lease.EXPIRED = expired


def _renewed_though_expired() -> None:
    lease.RENEW = edited(lease.RENEW, f"AND expires > {CLOCK}", "")


def _without_counting_takeovers() -> None:
    lease.TAKE_ORPHANED = edited(lease.TAKE_ORPHANED, ", takeovers = takeovers + 1", "")


def _prune_pending() -> None:
    webhooks.PRUNE = edited(webhooks.PRUNE, "state <> 'pending' AND ", "")


def _forgetting_lost_answers() -> None:
    async def nothing(*_: Any) -> dict[str, Any]:
        return {}

    replace(webhooks, "_stored_before", nothing)


def _rooms_without_asking_for_the_lease() -> None:
    rooms.TAKE = edited(rooms.TAKE, f"WHERE id = $1 AND expires > {CLOCK}", "WHERE id = $1")


def _rooms_without_owner_check() -> None:
    rooms.FIND_OWNED = edited(rooms.FIND_OWNED, "AND owner = $2", "AND $2 <> ''")


def _without_reading_synchronous_commit() -> None:
    opening.FACTS = edited(opening.FACTS, "current_setting('synchronous_commit')", "'on'")


def _unpinned() -> None:
    connection.PINNED = ""


def _keeping_every_connection() -> None:
    replace(connection, "leaves_connection_usable", lambda error: True)


def _holding_up_all_with_one_row() -> None:
    replace(writer, "is_contention", lambda error: False)


STORE = "tests/store/{}[postgresql]"

IN_POSTGRES: Mapping[str, Mutant] = {
    "PostgreSQL: without the unique index": Mutant(
        _without_unique_index,
        "tests/reliability/test_kills.py::test_all_holds_under_load[postgresql]",
        "stored more than once",
    ),
    "PostgreSQL: 200 before the commit": Mutant(
        _answer_before_commit,
        "tests/reliability/test_kills.py::test_nothing_acknowledged_is_lost_and_nothing_decided_twice[postgresql]",
        "acknowledged, but not stored",
    ),
    "PostgreSQL: decide without the owner check": Mutant(
        _without_owner_check,
        STORE.format("test_decide.py::test_only_its_owner_decides_a_webhook"),
    ),
    "PostgreSQL: claim from a live replica": Mutant(
        _without_expiry,
        STORE.format("test_claim.py::test_nothing_of_a_live_replica_is_claimed"),
    ),
    "PostgreSQL: an expired lease renewed": Mutant(
        _renewed_though_expired,
        STORE.format("test_leases.py::test_a_lease_that_has_run_out_is_not_renewed"),
    ),
    "PostgreSQL: without counting takeovers": Mutant(
        _without_counting_takeovers,
        "tests/reliability/test_kills.py::test_all_holds_at_a_boundary[postgresql-after emit]",
        "emitted again without counting the attempt",
    ),
    "PostgreSQL: prune what is pending": Mutant(
        _prune_pending,
        STORE.format("test_prune.py::test_a_pending_webhook_is_never_forgotten_however_old"),
    ),
    "PostgreSQL: a lost answer forgotten": Mutant(
        _forgetting_lost_answers,
        "tests/store/postgres/test_lost_answers.py::test_an_arrival_is_no_duplicate_of_itself",
    ),
    "PostgreSQL: rooms taken without a lease": Mutant(
        _rooms_without_asking_for_the_lease,
        STORE.format("test_leases.py::test_a_replica_whose_lease_has_run_out_takes_no_room"),
    ),
    "PostgreSQL: rooms without the owner check": Mutant(
        _rooms_without_owner_check,
        "tests/store/test_rooms.py::test_a_replica_that_does_not_own_a_room_changes_nothing[postgresql-ended-live]",
        "assert not True",
    ),
    "PostgreSQL: synchronous_commit unread": Mutant(
        _without_reading_synchronous_commit,
        "tests/reliability/test_unsafe_settings.py::"
        "test_a_database_that_does_not_wait_for_the_disk_is_refused[synchronous_commit=off]",
        "it is taken",
    ),
    "PostgreSQL: synchronous_commit not pinned": Mutant(
        _unpinned,
        "tests/store/postgres/test_reloaded.py::"
        "test_a_crash_loses_nothing_acknowledged_though_synchronous_commit_was_turned_off_meanwhile[?pooler=yes]",
    ),
    "PostgreSQL: a read-only connection kept": Mutant(
        _keeping_every_connection,
        "tests/store/postgres/test_read_only.py::"
        "test_a_replica_goes_on_by_itself_once_its_database_is_no_longer_read_only[?pooler=yes]",
    ),
    "PostgreSQL: one row holds up its batch": Mutant(
        _holding_up_all_with_one_row,
        "tests/store/postgres/test_locked_rows.py::test_a_duplicate_of_a_locked_webhook_holds_up_no_other_delivery",
    ),
}
