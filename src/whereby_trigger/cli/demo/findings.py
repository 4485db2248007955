"""What the demo found: the answers, the store's content, what the listeners wrote; and the checks on all of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from whereby_trigger.cli.demo.meeting import Meeting, Step
from whereby_trigger.store import Record, State


class Sent(Struct, frozen=True):
    """Pair a delivery with the answer it got."""

    step: Step
    answer: int


class Notified(Struct, frozen=True):
    """Hold one line that a listener wrote: for which webhook, at which attempt."""

    id: str
    attempt: int


class Found(Struct, frozen=True):
    """Hold what was observed: at the end, and `at_death`, between the kill and the restart. Records by arrival.

    `refusals` are the reasons that the server logged for what it did not let in.
    """

    sent: Sequence[Sent]
    refusals: Sequence[str]
    records: Sequence[Record]
    heard: Sequence[Notified]
    records_at_death: Sequence[Record]
    heard_at_death: Sequence[Notified]


class Check(Struct, frozen=True):
    """Hold a sentence that must be true, with what must be and what is."""

    sentence: str
    must_be: Any
    is_: Any

    @property
    def passed(self) -> bool:
        return bool(self.must_be == self.is_)


def checks(meeting: Meeting, found: Found) -> list[Check]:
    """Set what was found against what must be."""
    expected = meeting.expected()
    stored = {record.id: record for record in found.records}
    session = meeting.session.id
    return [
        Check(
            "Each delivery got its answer: 200 once it was on disk, 401 where it was forged",
            [sent.step.answer for sent in found.sent],
            [sent.answer for sent in found.sent],
        ),
        Check("The forged delivery was refused for its signature", ["wrong signature"], list(found.refusals)),
        Check(
            "The store holds what was answered 200, in order of arrival, once each, and nothing else",
            list(expected),
            [record.id for record in found.records],
        ),
        Check(
            "Duplicates were counted, across the restart too, and decided no second time",
            {id: row.deliveries for id, row in expected.items()},
            {id: row.deliveries for id, row in stored.items()},
        ),
        Check(
            "Each webhook has the decision that its predicate makes of it",
            {id: str(row.state) for id, row in expected.items()},
            {id: str(row.state) for id, row in stored.items()},
        ),
        Check(
            "The bot's own join sent no assistant, and the reason says why",
            "predicate first_person returned False (a bot's own event: is_human)",
            _reason(stored, meeting.bot.id),
        ),
        Check(
            "Of the pair out of order, each was decided by itself, in order of arrival",
            [meeting.visitor_left.id, meeting.visitor_joined.id],
            _as_decided(stored, {meeting.visitor_joined.id, meeting.visitor_left.id}),
        ),
        Check(
            "When the server was killed, the webhook it had acknowledged was on disk, undecided, unheard of",
            (str(State.PENDING), []),
            (_state(found.records_at_death, session), _attempts(found.heard_at_death).get(session, [])),
        ),
        Check(
            "Listeners heard once of each success; of the one in the kill after the restart, as attempt 2",
            {id: list(row.heard) for id, row in expected.items() if row.heard},
            _attempts(found.heard),
        ),
    ]


def _reason(stored: Mapping[str, Record], id: str) -> str:
    return stored[id].reason if id in stored else "not stored"


def _as_decided(stored: Mapping[str, Record], ids: set[str]) -> list[str]:
    decided = sorted((row.decided_at, id) for id, row in stored.items() if id in ids and row.decided_at is not None)
    return [id for _, id in decided]


def _state(records: Sequence[Record], id: str) -> str:
    return next((str(record.state) for record in records if record.id == id), "not stored")


def _attempts(heard: Sequence[Notified]) -> dict[str, list[int]]:
    attempts: dict[str, list[int]] = {}
    for one in heard:
        attempts.setdefault(one.id, []).append(one.attempt)
    return attempts
