"""The meetings: what Whereby would send, delivery by delivery, and the expected outcome of each webhook."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from whereby_trigger.store import State
from whereby_trigger.testing import Meeting
from whereby_trigger.webhook import RoomWebhook

VISIT, STANDUP = "/visit-7", "/standup"
REPLICA_VISIT, REPLICA_REVIEW = "/visit-8", "/review"
"""Not the rooms of the first scenario: on a shared store its sessions would count in these."""


class MeetingStep(Struct, frozen=True):
    """Describe one delivery: what happens in the meeting, and what is odd about it.

    `replicas`, counted from 1, receive it at the same time.
    """

    happening: str
    webhook: RoomWebhook
    oddity: str = ""
    forged: bool = False
    replicas: tuple[int, ...] = (1,)

    @property
    def answer(self) -> int:
        """The answer that it must get."""
        return 401 if self.forged else 200


class Expected(Struct, frozen=True):
    """Hold what the store must hold of a webhook at the end; `heard` are the attempts its listeners were called for."""

    state: State
    deliveries: int = 1
    heard: tuple[int, ...] = ()


class CrashMeeting:
    """Hold the meeting during which the server is killed; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        visit, standup = Meeting(VISIT, begin=begin), Meeting(STANDUP, begin=begin)
        self.host = visit.join("host", at=0)
        self.bot = visit.join("assistant", at=2)
        self.owner = standup.join("owner", at=3)
        self.visitor_joined = standup.join("visitor", at=5)
        self.visitor_left = standup.leave("visitor", at=9)
        self.forged = standup.request_assistant(at=10)
        self.session = standup.start(at=12)

    def before_kill(self) -> list[MeetingStep]:
        """Return the deliveries up to the one that the server is killed on, before it decides it."""
        return [
            MeetingStep("a host enters /visit-7", self.host),
            MeetingStep("Whereby sends it again", self.host, "duplicate"),
            MeetingStep("the assistant itself enters /visit-7", self.bot, "bot"),
            MeetingStep("the owner enters /standup", self.owner),
            MeetingStep("a visitor leaves /standup ...", self.visitor_left, "too early"),
            MeetingStep("... whose join arrives only now", self.visitor_joined, "too late"),
            MeetingStep("a stranger invites an assistant into /standup", self.forged, "forged", forged=True),
            MeetingStep("the session in /standup starts", self.session, "then killed"),
        ]

    def after_restart(self) -> list[MeetingStep]:
        """Return the deliveries that are sent once the server is back."""
        return [MeetingStep("Whereby repeats the start of the session", self.session, "duplicate")]

    def expected(self) -> Mapping[str, Expected]:
        """Return all that must be stored, by webhook id, in order of arrival."""
        return {webhook.id: expected for webhook, _, expected in self._outcomes() if expected is not None}

    def names(self) -> list[tuple[str, str]]:
        """Return each webhook's id with a name that a person understands."""
        return [(webhook.id, name) for webhook, name, _ in self._outcomes()]

    def _outcomes(self) -> list[tuple[RoomWebhook, str, Expected | None]]:
        return [
            (self.host, "host in /visit-7", Expected(State.FIRED, deliveries=2, heard=(1,))),
            (self.bot, "bot in /visit-7", Expected(State.SKIPPED)),
            (self.owner, "owner in /standup", Expected(State.FIRED, heard=(1,))),
            (self.visitor_left, "visitor left", Expected(State.NOTIFIED, heard=(1,))),
            (self.visitor_joined, "visitor joined", Expected(State.SKIPPED)),
            (self.forged, "forged request", None),
            (self.session, "session starts", Expected(State.FIRED, deliveries=2, heard=(2,))),
        ]


class ReplicaMeetings:
    """Hold the meetings that several replicas serve; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        meetings = {room: Meeting(room, begin=begin) for room in (REPLICA_VISIT, REPLICA_REVIEW)}

        def joins(at: float, who: str, role: str, room: str, *replicas: int) -> MeetingStep:
            sent = meetings[room].join(role, at=at)
            return MeetingStep(f"{who} enters {room}", sent, _to(replicas), replicas=replicas)

        self.joins: Sequence[MeetingStep] = [
            joins(0, "a host", "host", REPLICA_VISIT, 1),
            joins(1, "a visitor", "visitor", REPLICA_VISIT, 2),
            joins(2, "another visitor", "visitor", REPLICA_VISIT, 1),
            joins(3, "the owner", "owner", REPLICA_REVIEW, 2),
            joins(4, "a host", "host", REPLICA_REVIEW, 1),
        ]
        self.at_once = joins(5, "a visitor", "visitor", REPLICA_REVIEW, 1, 2)
        self.during_outage = joins(30, "a latecomer", "visitor", REPLICA_REVIEW, 1)
        self.ends: Sequence[MeetingStep] = [
            MeetingStep(f"the session in {room} ends", meeting.end(at=60), _to((3,)), replicas=(3,))
            for room, meeting in meetings.items()
        ]

    def steps(self, *, outage: bool) -> Sequence[MeetingStep]:
        """Return all deliveries; `outage` adds the one that is sent while the database is dead."""
        return [*self.joins, self.at_once, *([self.during_outage] if outage else []), *self.ends]

    def joins_by_room(self, *, outage: bool) -> dict[str, int]:
        """Return how many people join each room."""
        rooms = [step.webhook.data.room_name for step in self.steps(outage=outage) if step not in self.ends]
        return {room: rooms.count(room) for room in dict.fromkeys(rooms)}


def _to(replicas: tuple[int, ...]) -> str:
    numbers = " and ".join(map(str, replicas))
    return f"to replica {numbers}" if len(replicas) == 1 else f"to replicas {numbers} at once"
