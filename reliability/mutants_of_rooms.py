"""Mutations of rooms and leases."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reliability.mutant import Mutant, edited, replace
from whereby_trigger import leftovers
from whereby_trigger.assist import process
from whereby_trigger.assist.runners import Run
from whereby_trigger.fence import Fence
from whereby_trigger.store import RoomState, SessionChange, room_rules
from whereby_trigger.store.records import RoomRequest
from whereby_trigger.store.room_rules import RULES, Change, OpenRoom, RoomEvent
from whereby_trigger.store.sqlite import lease, opening, rooms


def _without_unique_index() -> None:
    original = opening.scripts
    unique, plain = "CREATE UNIQUE INDEX rooms_open", "CREATE INDEX rooms_open"
    edited("".join(original().values()), unique, plain)
    replace(opening, "scripts", lambda: {number: sql.replace(unique, plain) for number, sql in original().items()})


def _without_owner_check() -> None:
    rooms.FIND_OWNED = edited(rooms.FIND_OWNED, "AND owner = ?", "AND ? <> ''")


def _without_session_id_match() -> None:
    def ends(self: SessionChange, session_id: str | None, asked_at: float) -> bool:
        return self.created_at is None or self.created_at > asked_at

    replace(SessionChange, "ends", ends)


def _without_self_stop() -> None:
    def unheeded(self: Fence) -> None:
        return

    replace(Fence, "_endangered", unheeded)


def _without_asking_for_the_lease() -> None:
    replace(lease, "holds", lambda *_: True)


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


def _without_sessions_by_their_starts() -> None:
    """Treat any session that starts after a request without a session as the request's own."""
    replace(room_rules, "are_two", lambda sessions: False)


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


def _without_the_search() -> None:
    replace(leftovers, "sweep", lambda whose=(): iter(()))


NEWEST_SERVED = (
    "tests/store/test_meetings.py::test_the_newest_meeting_is_served_whatever_becomes_of_the_webhooks[rules]"
)
ROOMS = "tests/store/test_rooms.py::{}"

OF_ROOMS: Mapping[str, Mutant] = {
    "rooms without the unique index": Mutant(
        _without_unique_index,
        "tests/store/sqlite/test_rooms.py::test_a_room_has_one_open_entry",
        "DID NOT RAISE",
    ),
    "rooms without the owner check": Mutant(
        _without_owner_check,
        ROOMS.format("test_a_replica_that_does_not_own_a_room_changes_nothing[sqlite-ended-live]"),
        "assert not True",
    ),
    "sessions without their ids": Mutant(
        _without_session_id_match,
        "tests/store/test_sessions.py::"
        "test_a_sessions_end_asks_the_assistant_of_that_session_to_end[sqlite-another id]",
    ),
    "without the self-stop": Mutant(
        _without_self_stop,
        "tests/assist/test_self_fencing.py::test_while_the_store_is_away_assistants_leave_before_the_deadline_and_come_back_with_it",
        "it left after the deadline",
    ),
    "without the guard": Mutant(
        _without_the_guards_deadline,
        "tests/assist/test_guard.py::test_a_stops_grace_does_not_outlast_the_deadline",
    ),
    "without the search for what a guard left": Mutant(
        _without_the_search,
        # Every trigger on the machine ends what a killed guard left. This test freezes its guard instead: others leave
        # it alone.
        "tests/assist/test_leftovers.py::"
        "test_what_has_a_frozen_guard_is_left_alone_unless_its_replica_is_known_to_be_dead",
        "not in time",
    ),
    "rooms taken without a lease": Mutant(
        _without_asking_for_the_lease,
        "tests/store/test_leases.py::test_a_replica_whose_lease_has_run_out_takes_no_room[sqlite]",
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
        _without_sessions_by_their_starts,
        "tests/store/test_meetings.py::test_of_meetings_that_follow_each_other_the_right_one_is_served[rules]",
    ),
    "cut off again and again": Mutant(
        _cut_off_again_and_again,
        "tests/assist/test_hand_over.py::test_one_that_clings_to_its_room_however_often_it_is_cut_off_keeps_the_room",
        "given up with the assistant still in it",
    ),
}
