"""What a timeline says of the meetings of a room."""

import json

import pytest

from whereby_trigger import timeline
from whereby_trigger.store import Record, Room, RoomState, RunOutcome, RunRecord, State
from whereby_trigger.timeline import Found, MeetingHistory

KEY = "acme.whereby.com/visit-1"
REPLICA = "0123456789abcdef" * 2
T = 1_790_000_000.0
MINUTE = 60.0


def webhook(
    type: str,
    minute: float,
    session: str | None,
    state: State = State.SKIPPED,
    reason: str = "predicate first returned False",
) -> Record:
    """Make a webhook that came some minutes after T."""
    at = T + minute * MINUTE
    id = f"{type} at {minute}"
    data = {"roomName": "/visit-1", "subdomain": "acme", "roomSessionId": session}
    body = json.dumps({"id": id, "type": type, "apiVersion": "1.0", "data": data}).encode()
    return Record(id, type, KEY, state, reason, 1, 1, at, at + 0.1, None, (), body)


def assistant(webhook: Record, until: float | None = None, stop: str | None = None) -> tuple[Room, RunRecord]:
    """Make the entry that a webhook asked for, with its run, which is over some minutes after T, or goes on."""
    began, ended = webhook.received_at + 0.2, None if until is None else T + until * MINUTE
    state = RoomState.LIVE if ended is None else RoomState.ENDED
    reason = "" if ended is None else stop or "it left the room"
    owner = REPLICA if ended is None else None
    since = began + 1 if ended is None else ended
    room = Room(1, KEY, f"https://{KEY}", state, owner, webhook.id, 1, 0, None, stop, reason, began, since)
    outcome = None if ended is None else RunOutcome.LEFT
    run = RunRecord(
        1, 1, KEY, webhook.id, REPLICA, 1, None, began, began + 1, ended, outcome, reason, None, None, None, ""
    )
    return room, run


def told(records: list[Record], asked: tuple[Room, RunRecord], now: float) -> tuple[str, list[MeetingHistory]]:
    """Return the answer for a room, and its meetings, newest first, as seen some minutes after T."""
    room, run = asked
    shown = timeline.assemble(KEY, Found(records, [room], [run]), now=T + now * MINUTE)
    return shown.answer, list(shown.meetings)


@pytest.mark.parametrize("until", [None, 20.0])
def test_an_assistant_that_the_first_person_got_before_the_session_began_is_in_its_meeting(until: float | None) -> None:
    """Whereby names no session while one person waits alone."""
    alone = webhook("room.client.joined", 0, None, State.FIRED, "predicate is_human returned True; an assistant starts")
    records = [
        alone,
        webhook("room.session.started", 5, "one", State.UNHANDLED, "no predicate for it"),
        webhook("room.client.joined", 5, "one"),
        webhook("room.client.left", 30, "one"),
    ]
    answer, _ = told(records, assistant(alone, until), 31)
    assert answer.startswith(f"An assistant {'is' if until is None else 'was'} in the meeting of ")


def test_an_assistant_that_stayed_for_the_next_meeting_is_in_that_too() -> None:
    first = webhook(
        "room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    answer, meetings = told([first, webhook("room.client.joined", 30, "two")], assistant(first), 31)
    assert answer.startswith("An assistant is in the meeting of ")
    assert [meeting.session_id for meeting in meetings] == ["two", "one"]


def test_an_assistant_that_left_as_the_next_meeting_began_was_not_in_that() -> None:
    first = webhook(
        "room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    stopped = assistant(first, 30.1, "another session began")
    answer, meetings = told([first, webhook("room.client.joined", 30, "two")], stopped, 31)
    assert "predicate first returned False" in answer
    assert meetings[1].answer.startswith("An assistant was in the meeting of ")


def test_an_assistant_of_a_newer_meeting_is_not_in_an_older_one_whose_end_comes_late() -> None:
    newer = webhook(
        "room.client.joined", 30, "two", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    records = [webhook("room.client.joined", 0, "one"), newer, webhook("room.session.ended", 35, "one")]
    answer, meetings = told(records, assistant(newer), 36)
    assert answer.startswith("An assistant is in the meeting of ")
    assert meetings[1].answer.startswith("No assistant in the meeting of ")
