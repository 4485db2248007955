"""What a timeline says of the meetings of a room."""

import json
import re
from typing import Any

import pytest
from msgspec import structs

from whereby_trigger import timeline
from whereby_trigger.store import (
    Record,
    ReplicaEnding,
    ReplicaRecord,
    Room,
    RoomState,
    RunOutcome,
    RunRecord,
    State,
)
from whereby_trigger.timeline import Found, MeetingHistory
from whereby_trigger.timeline.meetings import Block

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


def assistant(webhook: Record, until: float | None = None, stop: str | None = None) -> tuple[Room, list[RunRecord]]:
    """Make the entry that a webhook asked for, with its run, which is over some minutes after T, or goes on."""
    state = RoomState.LIVE if until is None else RoomState.ENDED
    room = entry(1, webhook, state, "" if until is None else stop or "it left the room", until)
    return room, [run(1, 1, webhook.received_at + 0.2, until, None if until is None else RunOutcome.LEFT)]


def entry(id: int, webhook: Record, state: RoomState, reason: str, until: float | None) -> Room:
    """Make an entry that a webhook asked for, in a state since some minutes after T."""
    asked = webhook.received_at + 0.2
    since = asked + 1 if until is None else T + until * MINUTE
    owner = REPLICA if until is None else None
    return Room(id, KEY, f"https://{KEY}", state, owner, webhook.id, 1, 0, None, None, reason, asked, since)


def run(id: int, entry: int, began: float, until: float | None, outcome: RunOutcome | None) -> RunRecord:
    """Make a run that was live a moment after it began; if it failed, it exited with 75."""
    ended, code = None if until is None else T + until * MINUTE, 75 if outcome is RunOutcome.REFUSED else None
    told = (outcome, "exited with 75" if code else "it left the room", code, None, None, "")
    return RunRecord(id, entry, KEY, None, REPLICA, id, None, began, began + 0.5, ended, *told)


def refusals(entry: int, first: int, minute: float) -> list[RunRecord]:
    """Make three runs that exited with 75 as they joined, from some minutes after T."""
    begins = [minute + number / 10 for number in range(3)]
    return [run(first + n, entry, T + at * MINUTE, at + 0.02, RunOutcome.REFUSED) for n, at in enumerate(begins)]


def told(records: list[Record], asked: tuple[Room, list[RunRecord]], now: float) -> tuple[str, list[MeetingHistory]]:
    """Return the answer for a room, and its meetings, newest first, as seen some minutes after T."""
    room, runs = asked
    shown = timeline.assemble(KEY, Found(records, [room], runs), now=T + now * MINUTE)
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


def test_an_assistant_that_stayed_in_the_next_meeting_until_nobody_was_there_was_in_that_too() -> None:
    """The end of its own meeting was lost, and it leaves a minute after the last person, as `leave_when_empty` says."""
    first = webhook(
        "room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    next_meeting = [webhook("room.client.joined", 30, "two"), webhook("room.client.left", 40, "two")]
    late_end = webhook("room.session.ended", 40.1, "two")
    for records in (next_meeting, [*next_meeting, late_end]):
        answer, _ = told([first, *records], assistant(first, 41.0, "nobody was in the room for 60 s"), 42)
        assert answer.startswith("An assistant was in the meeting of ")


def test_an_assistant_of_a_newer_meeting_is_not_in_an_older_one_whose_end_comes_late() -> None:
    newer = webhook(
        "room.client.joined", 30, "two", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    records = [webhook("room.client.joined", 0, "one"), newer, webhook("room.session.ended", 35, "one")]
    answer, meetings = told(records, assistant(newer), 36)
    assert answer.startswith("An assistant is in the meeting of ")
    assert meetings[1].answer.startswith("No assistant in the meeting of ")


def test_an_assistant_that_was_there_for_an_hour_before_it_failed_was_in_the_meeting() -> None:
    """Whereby removes it when the last person leaves, and lets nobody into an empty room."""
    first = webhook(
        "room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    removed = run(1, 1, first.received_at + 0.2, 60.0, RunOutcome.REFUSED)
    gave_up = entry(1, first, RoomState.FAILED, "exited with 75, after 3 restarts", 61.0)
    answer, _ = told([first], (gave_up, [removed, *refusals(1, 2, 60.1)]), 90)
    pattern = (
        r"An assistant was in the meeting of [-0-9: ]+ from [-0-9: ]+ to [-0-9: ]+: it exited with 75; "
        r"then it exited with 75 three times, and then gave up\."
    )
    assert re.fullmatch(pattern, answer), answer
    over = entry(1, first, RoomState.ENDED, "the session has ended", 60.1)
    answer, _ = told([first], (over, [removed]), 90)
    assert re.fullmatch(
        r"An assistant was in the meeting of [-0-9: ]+ from [-0-9: ]+ to [-0-9: ]+: it exited with 75\.", answer
    ), answer


def test_an_assistant_that_was_there_before_another_one_failed_was_in_the_meeting() -> None:
    first = webhook(
        "room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    second = webhook(
        "room.client.joined", 40, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    rooms = [
        entry(1, first, RoomState.ENDED, "it left the room", 30.0),
        entry(2, second, RoomState.FAILED, "exited with 75, after 2 restarts", 41.0),
    ]
    runs = [run(1, 1, first.received_at + 0.2, 30.0, RunOutcome.LEFT), *refusals(2, 2, 40.1)]
    answer = timeline.assemble(KEY, Found([first, second], rooms, runs), now=T + 3000).answer
    pattern = (
        r"An assistant was in the meeting of [-0-9: ]+ from [-0-9: ]+ to [-0-9: ]+: it left the room; "
        r"then none: it exited with 75 three times, and then gave up\."
    )
    assert re.fullmatch(pattern, answer), answer


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("listener greet: RuntimeError (at app.py:3): Ada", "listener greet raised RuntimeError"),
        ("listener greet: raised RuntimeError", "listener greet raised RuntimeError"),
        ("listener greet: was cancelled", "listener greet was cancelled"),
        ("listener greet: took longer than 5 s", "listener greet took longer than 5 s"),
    ],
)
def test_what_became_of_a_listener_is_said_whether_errors_are_stored_in_full_or_not(error: str, words: str) -> None:
    """With `redact`, only the type of an error is stored."""
    fired = webhook("room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True")
    shown = timeline.assemble(KEY, Found([structs.replace(fired, errors=(error,))]), now=T + MINUTE)
    assert shown.meetings[0].entries[0].words.endswith(f"; {words}")
    assert shown.answer.endswith(f"only listeners; {words}.")


def test_thousands_of_replicas_in_a_meeting_do_not_each_look_at_all_its_webhooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reach, looks = vars(Block)["reach"].fget, list[Block]()

    def looked_at(block: Block) -> Any:
        looks.append(block)
        return reach(block)

    monkeypatch.setattr(Block, "reach", property(looked_at))
    records = [webhook("room.client.joined", minute, "one") for minute in range(60)]
    begins = [T + second for second in range(3600)]
    replicas = [ReplicaRecord(f"{at}", at, at + 0.5, ReplicaEnding.DIED, None) for at in begins]
    shown = timeline.assemble(KEY, Found(records, replicas=replicas), T, now=T + 3600)
    assert len(shown.meetings[0].entries) > 2 * len(replicas)
    assert len(looks) < 10


def test_an_assistant_that_failed_between_two_long_stays_is_said_to_have_failed() -> None:
    first = webhook(
        "room.client.joined", 0, "one", State.FIRED, "predicate is_human returned True; an assistant starts"
    )
    runs = [
        run(1, 1, first.received_at + 0.2, 10.0, RunOutcome.REFUSED),
        run(2, 1, T + 10.1 * MINUTE, 30.0, RunOutcome.LEFT),
    ]
    over = entry(1, first, RoomState.ENDED, "it left the room", 30.0)
    answer, _ = told([first], (over, runs), 31)
    pattern = (
        r"An assistant was in the meeting of [-0-9: ]+ from [-0-9: ]+ to [-0-9: ]+: it left the room, "
        r"after it exited with 75\."
    )
    assert re.fullmatch(pattern, answer), answer
