"""What each scenario of the demo observed, and the checks on it."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import Any

from msgspec import Struct

from whereby_trigger.cli.demo.meetings import CrashMeeting, MeetingStep, ReplicaMeetings
from whereby_trigger.store import Record, Room, RoomState, State

DRAINING = "the replica is draining"
SESSION_OVER = "the session has ended"
Heard = tuple[str, int]
"""What a listener wrote down: a webhook's id and the attempt."""


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


class CrashResult(Struct, frozen=True):
    """Hold what was observed at the end, and `at_death`, between the kill and the restart. Records by arrival."""

    sent: Sequence[Sent]
    refusals: Sequence[str]
    records: Sequence[Record]
    heard: Sequence[Heard]
    records_at_death: Sequence[Record]
    heard_at_death: Sequence[Heard]


class AssistantRun(Struct, frozen=True):
    """Describe a run as its assistant wrote it down, in seconds since 1970; `ended` is infinite if it noted no end.

    `replica` and `attempt` count from 1.
    """

    room: str
    attempt: int
    pid: int
    started: float
    ended: float = inf
    reason: str = ""
    replica: int = 0


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
    exit_code: int
    new_owner: int
    rooms: Sequence[Room]
    takeover_within: float

    def runs_in(self, room: str) -> list[AssistantRun]:
        """Return the runs in a room, in the order of their start."""
        return sorted((run for run in self.runs if run.room == room), key=lambda run: run.started)

    def end_of(self, run: AssistantRun) -> float:
        """Return when a run ended, on its own or by the kill; infinity if it did not."""
        return min(run.ended, self.killed_at) if run.replica == self.killed else run.ended


def check_crash(meeting: CrashMeeting, result: CrashResult) -> list[Check]:
    """Compare what was observed around the crash of a server with what must be true."""
    names = {step.webhook.id: step.happening for step in meeting.stored}
    stored = {names.get(record.id, record.id): record for record in result.records}
    deliveries = Counter(sent.step.webhook.id for sent in result.sent)
    times = {record.id: record.decided_at for record in result.records if record.decided_at is not None}
    out_of_order = (meeting.left.webhook.id, meeting.joined.webhook.id)
    session = meeting.session.webhook.id
    return [
        Check(
            "Each delivery got its answer: 200 once it was on disk, 401 if it was forged",
            [sent.step.answer for sent in result.sent],
            [sent.answer for sent in result.sent],
        ),
        Check("The forged delivery was refused for its signature", ["wrong signature"], list(result.refusals)),
        Check(
            "The store holds each webhook that was answered 200, once, in order of arrival, and nothing else",
            [*names.values()],
            [*stored],
        ),
        Check(
            "Duplicates were counted and not decided again, even across the restart",
            {name: deliveries[id] for id, name in names.items()},
            {name: record.deliveries for name, record in stored.items()},
        ),
        Check(
            "Each webhook has the decision of its predicate",
            {step.happening: step.state for step in meeting.stored},
            {name: record.state for name, record in stored.items()},
        ),
        Check(
            "The bot's own join sent no assistant, and the reason says why",
            ["predicate first_person returned False (a bot's own event: is_human)"],
            [record.reason for record in result.records if record.id == meeting.bot.webhook.id],
        ),
        Check(
            "The two webhooks out of order were decided one by one, in order of arrival",
            [meeting.left.happening, meeting.joined.happening],
            [names.get(id, id) for id in sorted(times, key=lambda id: times[id]) if id in out_of_order],
        ),
        Check(
            "When the server was killed, the webhook it had acknowledged was on disk, undecided, and no listener had "
            "been called",
            ([State.PENDING], 0),
            (
                [record.state for record in result.records_at_death if record.id == session],
                sum(id == session for id, _ in result.heard_at_death),
            ),
        ),
        Check(
            "Listeners were called once for each success; for the one the kill interrupted, after the restart, as "
            "attempt 2",
            sorted((step.happening, step.heard) for step in meeting.stored if step.heard is not None),
            sorted((names.get(id, id), attempt) for id, attempt in result.heard),
        ),
    ]


def check_replicas(meetings: ReplicaMeetings, result: ReplicaResult) -> list[Check]:
    """Compare what was observed of the replicas with what must be true."""
    joins = Counter(step.webhook.data.room_name for step in meetings.steps if step not in meetings.ends)
    runs = {room: result.runs_in(room) for room in joins}
    orphaned = [run.room for run in result.runs_before if run.replica == result.killed]
    within = f"within {result.takeover_within:g} s"
    return [
        Check(
            "Each delivery was answered 200 by every replica that received it",
            [200 for step in meetings.steps for _ in step.replicas],
            [sent.answer for sent in result.sent],
        ),
        Check(
            "A webhook that reached two replicas at once is stored once, delivered twice, and was decided once",
            [(2, 1, State.FIRED)],
            [(r.deliveries, r.attempts, r.state) for r in result.records if r.id == meetings.at_once.webhook.id],
        ),
        Check(
            "Each room got one assistant, although several people joined through both replicas",
            dict.fromkeys(joins, 1),
            dict(Counter(run.room for run in result.runs_before)),
        ),
        Check(
            "One join of each room started its assistant; the reasons of the others say that there was one",
            {room: (1, count - 1) for room, count in joins.items()},
            {room: _claims(result.records, room) for room in joins},
        ),
        Check(
            f"The other replica took over the rooms of the killed one {within}",
            dict.fromkeys(orphaned, (result.drained, within)),
            {room: _taken_over(runs[room], result) for room in orphaned},
        ),
        Check("The replica that was told to stop drained, and exited with 0", 0, result.exit_code),
        Check(
            "Its assistants were told why, and the third replica started others in their place",
            {room: [(DRAINING, result.new_owner)] for room in joins},
            {
                room: [(run.reason, after.replica) for run, after in pairwise(own) if run.replica == result.drained]
                for room, own in runs.items()
            },
        ),
        Check(
            "No room ever had two assistants at once",
            [],
            [room for room, own in runs.items() for run, after in pairwise(own) if after.started < result.end_of(run)],
        ),
        Check(
            "When the sessions ended, the assistants left, and the rooms ended",
            ([SESSION_OVER] * len(joins), [(RoomState.ENDED, SESSION_OVER)] * len(joins)),
            ([run.reason for own in runs.values() for run in own[-1:]], [(r.state, r.reason) for r in result.rooms]),
        ),
    ]


def _claims(records: Sequence[Record], room: str) -> tuple[int, int]:
    """Return how many joins started the room's assistant, and how many found one."""
    reasons = [row.reason for row in records if row.type == "room.client.joined" and (row.room or "").endswith(room)]
    started = sum(reason.endswith("; an assistant starts") for reason in reasons)
    found = sum("; room has an assistant" in reason or "; the room waits for an" in reason for reason in reasons)
    return started, found


def _taken_over(runs: Sequence[AssistantRun], result: ReplicaResult) -> tuple[int, str] | None:
    """Return the replica that had a room next after the killed one, and after how long."""
    for run in runs:
        if run.replica != result.killed:
            seconds, most = run.started - result.killed_at, result.takeover_within
            return run.replica, f"within {most:g} s" if seconds <= most else f"after {seconds:.1f} s"
    return None
