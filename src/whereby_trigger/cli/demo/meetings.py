"""The scripted meetings: what Whereby would send, delivery by delivery, and the expected outcome of each webhook."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from whereby_trigger.store import State
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import RoomClientJoined, RoomWebhook

VISIT = "/visit-7"
STANDUP = "/standup"

REPLICA_VISIT = "/visit-8"
REPLICA_REVIEW = "/review"
"""Not the rooms of the first scenario: on a shared store its sessions would count in these."""


class MeetingStep(Struct, frozen=True):
    """Describe one delivery: what happens in the meeting, what is odd about it, and the answer it must get."""

    happening: str
    webhook: RoomWebhook
    oddity: str = ""
    forged: bool = False
    answer: int = 200


class Expected(Struct, frozen=True):
    """Hold what the store must hold of a webhook at the end; `heard` are the attempts its listeners were called for."""

    state: State
    deliveries: int = 1
    heard: tuple[int, ...] = ()


class CrashMeeting:
    """Hold the meeting during which the server is killed; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        def at(seconds: float) -> datetime:
            return begin + timedelta(seconds=seconds)

        def joined(room: str, moment: datetime, role: str, **present: int) -> RoomClientJoined:
            counts = {"num_clients_by_role_name": present}
            return webhook("room.client.joined", room=room, created_at=moment, role_name=role, **counts)

        self.host = joined(VISIT, at(0), "host", host=1)
        self.bot = joined(VISIT, at(2), "assistant", host=1, assistant=1)
        self.owner = joined(STANDUP, at(3), "owner", owner=1)
        self.visitor_joined = joined(STANDUP, at(5), "visitor", owner=1, visitor=1)
        self.visitor_left = webhook("room.client.left", room=STANDUP, created_at=at(9), role_name="visitor")
        self.forged = webhook("assistant.requested", room=STANDUP, created_at=at(10))
        self.session = webhook("room.session.started", room=STANDUP, created_at=at(12))

    def before_kill(self) -> list[MeetingStep]:
        """Return the deliveries up to the one that the server is killed on, before it decides it."""
        return [
            MeetingStep("a host enters /visit-7", self.host),
            MeetingStep("Whereby sends it again", self.host, "duplicate"),
            MeetingStep("the assistant itself enters /visit-7", self.bot, "bot"),
            MeetingStep("the owner enters /standup", self.owner),
            MeetingStep("a visitor leaves /standup ...", self.visitor_left, "too early"),
            MeetingStep("... whose join arrives only now", self.visitor_joined, "too late"),
            MeetingStep(
                "a stranger invites an assistant into /standup", self.forged, "forged", forged=True, answer=401
            ),
            MeetingStep("the session in /standup starts", self.session, "then killed"),
        ]

    def after_restart(self) -> list[MeetingStep]:
        """Return the deliveries that are sent once the server is back."""
        return [MeetingStep("Whereby repeats the start of the session", self.session, "duplicate")]

    def expected(self) -> Mapping[str, Expected]:
        """Return all that must be stored, by webhook id, in order of arrival."""
        return {
            self.host.id: Expected(State.FIRED, deliveries=2, heard=(1,)),
            self.bot.id: Expected(State.SKIPPED),
            self.owner.id: Expected(State.FIRED, heard=(1,)),
            self.visitor_left.id: Expected(State.NOTIFIED, heard=(1,)),
            self.visitor_joined.id: Expected(State.SKIPPED),
            self.session.id: Expected(State.FIRED, deliveries=2, heard=(2,)),
        }

    def names(self) -> list[tuple[str, str]]:
        """Return each webhook's id with a name that a person understands."""
        return [
            (self.host.id, "host in /visit-7"),
            (self.bot.id, "bot in /visit-7"),
            (self.owner.id, "owner in /standup"),
            (self.visitor_left.id, "visitor left"),
            (self.visitor_joined.id, "visitor joined"),
            (self.forged.id, "forged request"),
            (self.session.id, "session starts"),
        ]


class ReplicaStep(Struct, frozen=True):
    """Describe one delivery, and the replicas that receive it at the same time; replicas count from 1."""

    step: MeetingStep
    replicas: tuple[int, ...]


class ReplicaMeetings:
    """Hold the meetings that several replicas serve; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        def about(room: str, seconds: float) -> dict[str, Any]:
            moment = begin + timedelta(seconds=seconds)
            return {"room": room, "created_at": moment, "room_session_id": f"session in {room}"}

        def joins(seconds: float, who: str, role: str, room: str, *replicas: int) -> ReplicaStep:
            sent = webhook("room.client.joined", role_name=role, **about(room, seconds))
            return ReplicaStep(MeetingStep(f"{who} enters {room}", sent, _to(replicas)), replicas)

        def ends(seconds: float, room: str, *replicas: int) -> ReplicaStep:
            sent = webhook("room.session.ended", **about(room, seconds))
            return ReplicaStep(MeetingStep(f"the session in {room} ends", sent, _to(replicas)), replicas)

        self.joins: Sequence[ReplicaStep] = [
            joins(0, "a host", "host", REPLICA_VISIT, 1),
            joins(1, "a visitor", "visitor", REPLICA_VISIT, 2),
            joins(2, "another visitor", "visitor", REPLICA_VISIT, 1),
            joins(3, "the owner", "owner", REPLICA_REVIEW, 2),
            joins(4, "a host", "host", REPLICA_REVIEW, 1),
        ]
        self.at_once = joins(5, "a visitor", "visitor", REPLICA_REVIEW, 1, 2)
        self.during_outage = joins(30, "a latecomer", "visitor", REPLICA_REVIEW, 1)
        self.ends: Sequence[ReplicaStep] = [ends(60, REPLICA_VISIT, 3), ends(60, REPLICA_REVIEW, 3)]

    def steps(self, *, outage: bool) -> Sequence[ReplicaStep]:
        """Return all deliveries; `outage` adds the one that is sent while the database is dead."""
        return [*self.joins, self.at_once, *([self.during_outage] if outage else []), *self.ends]

    def joins_by_room(self, *, outage: bool) -> dict[str, int]:
        """Return how many people join each room."""
        joins = [sent.step.webhook for sent in self.steps(outage=outage) if sent not in self.ends]
        names = [webhook.data.room_name for webhook in joins]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def _to(replicas: tuple[int, ...]) -> str:
    numbers = " and ".join(map(str, replicas))
    return f"to replica {numbers}" if len(replicas) == 1 else f"to replicas {numbers} at once"
