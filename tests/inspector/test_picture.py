"""The picture of a room's timeline: the shape of each event, its words, and the line that it links to."""

import itertools

import pytest

from whereby_trigger.inspector.picture import RUN_KINDS, SHAPES, Picture, draw
from whereby_trigger.inspector.reads import ShownEntry
from whereby_trigger.store import ReplicaEnding, RunOutcome, State
from whereby_trigger.timeline import Entry, Kind


def webhook(at: float, id: str, state: State, humans: int = 1) -> Entry:
    counts = {"humans": humans, "bots": 1, "counted_at": at}
    fields = {"id": id, "type": "room.client.joined", "state": str(state)} | counts
    return Entry(at, Kind.WEBHOOK, f"{id}: {state}", fields)


def drawn(*entries: Entry) -> Picture:
    return draw([ShownEntry(f"h-{n}", entry) for n, entry in enumerate(entries)], 1000.0, 2000.0)


def test_holds_stops_refusals_and_replica_deaths_are_marks_with_words_that_lead_to_their_lines() -> None:
    picture = drawn(
        webhook(1100, "held", State.HELD),
        webhook(1110, "late", State.FIRED, humans=3),
        Entry(1160, Kind.DECIDED, "late: fired after 50 s", {"id": "late", "type": "room.client.joined"}),
        Entry(1200, Kind.STARTED, "attempt 1 starts", {"run": 1, "outcome": str(RunOutcome.STOPPED)}, 1500.0),
        Entry(1500, Kind.OVER, "the assistant was stopped", {"run": 1, "outcome": RunOutcome.STOPPED}),
        Entry(1600, Kind.REFUSED, "3 deliveries were refused", {}),
        Entry(1700, Kind.REPLICA, "replica 1 started", {"ending": None}),
        Entry(1800, Kind.REPLICA, "replica 1 died", {"ending": ReplicaEnding.DIED}),
        Entry(1900, Kind.ACTED, "by hand: a replay", {}),
    )
    assert [(mark.kind, mark.title, mark.target) for mark in picture.marks] == [
        ("state-held", "held: held", "h-0"),
        ("state-fired", "late: fired", "h-1"),
        ("stop", "the assistant was stopped", "h-4"),
        ("acted", "by hand: a replay", "h-8"),
        ("replica", "replica 1 started", "h-6"),
        ("death", "replica 1 died", "h-7"),
        ("refusal", "3 deliveries were refused", "h-5"),
    ]
    until_now, decided = picture.holds
    assert (until_now.title, until_now.x + until_now.width) == ("held: held", picture.right)
    assert (decided.title, decided.target) == ("late: fired after 50 s", "h-2")
    (bar,) = picture.bars
    assert (bar.kind, bar.title) == ("run-stopped", "stopped: attempt 1 starts; the assistant was stopped")
    assert picture.people_title == "People over time: at most 3 humans and 1 bot."


@pytest.mark.parametrize("outcome", [None, *RunOutcome])
def test_a_run_is_coloured_by_its_end_and_says_it_in_words_too(outcome: RunOutcome | None) -> None:
    fields = {"run": 1, "outcome": None if outcome is None else str(outcome)}
    picture = drawn(Entry(1000, Kind.STARTED, "starts", fields, None if outcome is None else 2000.0))
    (bar,) = picture.bars
    assert bar.kind == f"run-{RUN_KINDS[outcome]}"
    assert bar.text == bar.title.partition(":")[0] == (outcome or "running")


def test_decisions_of_different_colours_have_different_shapes() -> None:
    coloured = [State.FIRED, State.SKIPPED, State.NOTIFIED, State.FAILED, State.QUARANTINED, State.PENDING]
    for one, other in itertools.combinations(coloured, 2):
        assert SHAPES.get(f"state-{one}", "dot") != SHAPES.get(f"state-{other}", "dot"), (one, other)
