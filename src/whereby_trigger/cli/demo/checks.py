"""What each scenario of the demo observed, and the checks on it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct

from whereby_trigger.cli.demo.meetings import CrashMeeting, MeetingStep, ReplicaMeetings
from whereby_trigger.store import Record, Room, RoomState, State

DRAINING = "the replica is draining"
SESSION_OVER = "the session has ended"


class Check(Struct, frozen=True):
    """Hold a sentence that must be true, with the expected and the actual value."""

    sentence: str
    expected: Any
    actual: Any

    @property
    def passed(self) -> bool:
        return bool(self.expected == self.actual)


class Sent(Struct, frozen=True):
    """Pair a delivery with the answer it got."""

    step: MeetingStep
    answer: int


class Notified(Struct, frozen=True):
    """Hold one line that a listener wrote: the webhook's id and the attempt."""

    id: str
    attempt: int


class CrashResult(Struct, frozen=True):
    """Hold what was observed at the end, and `at_death`, between the kill and the restart. Records by arrival.

    `refusals` are the reasons that the server logged for the deliveries it refused.
    """

    sent: Sequence[Sent]
    refusals: Sequence[str]
    records: Sequence[Record]
    heard: Sequence[Notified]
    records_at_death: Sequence[Record]
    heard_at_death: Sequence[Notified]


class AssistantRun(Struct, frozen=True):
    """Describe one run of an assistant, in seconds since 1970; `ended` is None and `reason` empty if it noted no end.

    `replica` and `attempt` count from 1.
    """

    room: str
    replica: int
    attempt: int
    started: float
    ended: float | None = None
    reason: str = ""


class Outage(Struct, frozen=True):
    """Describe the database's death: the runs at that time, and when the delivery sent during it was answered.

    `up_at` is when the restart of the database began. Both times are seconds since 1970.
    """

    runs: Sequence[AssistantRun]
    up_at: float
    answered_at: float


class ReplicaResult(Struct, frozen=True):
    """Hold what was observed. `runs_before` are the runs before the replica `killed` died. Records by arrival.

    `drained` is the replica that was told to stop, `exit_code` is its exit code, and `new_owner` the replica that was
    up by then. `takeover_within` is the longest that a takeover may last, in seconds.
    """

    sent: Sequence[Sent]
    records: Sequence[Record]
    runs_before: Sequence[AssistantRun]
    runs: Sequence[AssistantRun]
    killed: int
    killed_at: float
    drained: int
    exit_code: int | None
    new_owner: int
    rooms: Sequence[Room]
    takeover_within: float
    outage: Outage | None = None

    def runs_in(self, room: str) -> list[AssistantRun]:
        """Return the runs in a room, in the order of their start."""
        return sorted((run for run in self.runs if run.room == room), key=lambda run: run.started)

    def end_of(self, run: AssistantRun) -> float:
        """Return when a run ended, on its own or by the kill; infinity if it did not."""
        if run.ended is not None:
            return run.ended
        return self.killed_at if run.replica == self.killed else math.inf


def check_crash(meeting: CrashMeeting, result: CrashResult) -> list[Check]:
    """Compare what was observed around the crash of a server with what must be true."""
    expected = meeting.expected()
    stored = {record.id: record for record in result.records}
    session, states_at_death = meeting.session.id, {row.id: str(row.state) for row in result.records_at_death}
    return [
        Check(
            "Each delivery got its answer: 200 once it was on disk, 401 if it was forged",
            [sent.step.answer for sent in result.sent],
            [sent.answer for sent in result.sent],
        ),
        Check("The forged delivery was refused for its signature", ["wrong signature"], list(result.refusals)),
        Check(
            "The store holds each webhook that was answered 200, once, in order of arrival, and nothing else",
            list(expected),
            [record.id for record in result.records],
        ),
        Check(
            "Duplicates were counted and not decided again, even across the restart",
            {id: row.deliveries for id, row in expected.items()},
            {id: row.deliveries for id, row in stored.items()},
        ),
        Check(
            "Each webhook has the decision of its predicate",
            {id: str(row.state) for id, row in expected.items()},
            {id: str(row.state) for id, row in stored.items()},
        ),
        Check(
            "The bot's own join sent no assistant, and the reason says why",
            "predicate first_person returned False (a bot's own event: is_human)",
            stored[meeting.bot.id].reason if meeting.bot.id in stored else "not stored",
        ),
        Check(
            "The two webhooks out of order were decided one by one, in order of arrival",
            [meeting.visitor_left.id, meeting.visitor_joined.id],
            _as_decided(stored, {meeting.visitor_joined.id, meeting.visitor_left.id}),
        ),
        Check(
            "When the server was killed, the webhook it had acknowledged was on disk, undecided, and no listener had "
            "been called",
            (str(State.PENDING), []),
            (states_at_death.get(session, "not stored"), _attempts(result.heard_at_death).get(session, [])),
        ),
        Check(
            "Listeners were called once for each success; for the one the kill interrupted, after the restart, as "
            "attempt 2",
            {id: list(row.heard) for id, row in expected.items() if row.heard},
            _attempts(result.heard),
        ),
    ]


def check_replicas(meetings: ReplicaMeetings, result: ReplicaResult) -> list[Check]:
    """Compare what was observed of the replicas with what must be true."""
    had_outage = result.outage is not None
    rooms = meetings.joins_by_room(outage=had_outage)
    orphaned = [run.room for run in result.runs_before if run.replica == result.killed]
    within = f"within {result.takeover_within:g} s"
    return [
        Check(
            "Each delivery was answered 200 by every replica that received it",
            [200 for step in meetings.steps(outage=had_outage) for _ in step.replicas],
            [sent.answer for sent in result.sent],
        ),
        Check(
            "A webhook that reached two replicas at once is stored once, delivered twice, and was decided once",
            [(len(meetings.at_once.replicas), 1, State.FIRED.value)],
            [
                (row.deliveries, row.attempts, row.state.value)
                for row in result.records
                if row.id == meetings.at_once.webhook.id
            ],
        ),
        *([] if result.outage is None else _outage_checks(result.outage, result.runs_before)),
        Check(
            "Each room got one assistant, although several people joined through both replicas",
            dict.fromkeys(rooms, 1),
            {room: sum(run.room == room for run in result.runs_before) for room in rooms},
        ),
        Check(
            "One join of each room started its assistant; the reasons of the others say that there was one",
            {room: (1, joins - 1) for room, joins in rooms.items()},
            {room: _claims(result.records, room) for room in rooms},
        ),
        Check(
            f"The other replica took over the rooms of the killed one {within}",
            dict.fromkeys(orphaned, (result.drained, within)),
            {room: _taken_over(result, room) for room in orphaned},
        ),
        Check("The replica that was told to stop drained, and exited with 0", 0, result.exit_code),
        Check(
            "Its assistants were told why, and the third replica started others in their place",
            dict.fromkeys(rooms, (DRAINING, result.new_owner)),
            {room: _handed_over(result, room) for room in rooms},
        ),
        Check("No room ever had two assistants at once", [], [room for room in rooms if _overlap(result, room)]),
        Check(
            "When the sessions ended, the assistants left, and the rooms ended",
            dict.fromkeys(rooms, (SESSION_OVER, RoomState.ENDED.value, SESSION_OVER)),
            {room: _ended(result, room) for room in rooms},
        ),
    ]


def _outage_checks(outage: Outage, runs_before: Sequence[AssistantRun]) -> list[Check]:
    return [
        Check(
            "Every assistant stayed in its room while the database was dead and restarted",
            list(outage.runs),
            list(runs_before),
        ),
        Check(
            "The delivery sent during the outage waited, and was answered once the database was back",
            "after its restart",
            "after its restart" if outage.answered_at >= outage.up_at else "before its restart",
        ),
    ]


def _as_decided(stored: Mapping[str, Record], ids: set[str]) -> list[str]:
    decided = sorted((row.decided_at, id) for id, row in stored.items() if id in ids and row.decided_at is not None)
    return [id for _, id in decided]


def _attempts(heard: Sequence[Notified]) -> dict[str, list[int]]:
    attempts: dict[str, list[int]] = {}
    for one in heard:
        attempts.setdefault(one.id, []).append(one.attempt)
    return attempts


def _claims(records: Iterable[Record], room: str) -> tuple[int, int]:
    """Return how many joins started the room's assistant, and how many found one."""
    reasons = [row.reason for row in records if row.type == "room.client.joined" and (row.room or "").endswith(room)]
    started = sum(reason.endswith("; an assistant starts") for reason in reasons)
    found = sum("; room has an assistant" in reason or "; the room waits for an" in reason for reason in reasons)
    return started, found


def _taken_over(result: ReplicaResult, room: str) -> tuple[int, str] | None:
    for run in result.runs_in(room):
        if run.replica != result.killed:
            seconds = run.started - result.killed_at
            within = seconds <= result.takeover_within
            return run.replica, f"within {result.takeover_within:g} s" if within else f"after {seconds:.1f} s"
    return None


def _handed_over(result: ReplicaResult, room: str) -> tuple[str, int] | None:
    for run, following in pairwise(result.runs_in(room)):
        if run.replica == result.drained:
            return run.reason, following.replica
    return None


def _overlap(result: ReplicaResult, room: str) -> bool:
    return any(following.started < result.end_of(run) for run, following in pairwise(result.runs_in(room)))


def _ended(result: ReplicaResult, room: str) -> tuple[str, str, str] | None:
    runs = result.runs_in(room)
    entry = next((entry for entry in result.rooms if entry.url.endswith(room)), None)
    return (runs[-1].reason, entry.state.value, entry.reason) if runs and entry else None
