"""The scripted meeting: what Whereby would send, delivery by delivery, and what must become of each webhook."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec import Struct

from whereby_trigger.store import State
from whereby_trigger.testing import webhook
from whereby_trigger.webhook import RoomClientJoined, RoomWebhook

VISIT = "/visit-7"
STANDUP = "/standup"


class Step(Struct, frozen=True):
    """Describe one delivery: what happens in the meeting, what is odd about it, and the answer it must get."""

    happening: str
    webhook: RoomWebhook
    oddity: str = ""
    forged: bool = False
    answer: int = 200


class Expected(Struct, frozen=True):
    """Say what must be found of a webhook at the end: `heard` are the attempts that its listeners were told of."""

    state: State
    deliveries: int = 1
    heard: tuple[int, ...] = ()


class Meeting:
    """Hold the script; `begin` is when the first person enters."""

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

    def before_kill(self) -> list[Step]:
        """List the deliveries up to the one that the server will not live to decide."""
        return [
            Step("a host enters /visit-7", self.host),
            Step("Whereby sends the same again", self.host, "duplicate"),
            Step("the assistant itself enters /visit-7", self.bot, "bot"),
            Step("the owner enters /standup", self.owner),
            Step("a visitor leaves /standup ...", self.visitor_left, "too early"),
            Step("... whose joining arrives only now", self.visitor_joined, "too late"),
            Step("a stranger invites an assistant into /standup", self.forged, "forged", forged=True, answer=401),
            Step("the session in /standup begins", self.session, "then killed"),
        ]

    def after_restart(self) -> list[Step]:
        """List what is sent once the server is back."""
        return [Step("Whereby repeats the session's begin", self.session, "duplicate")]

    def expected(self) -> Mapping[str, Expected]:
        """Say what must be stored, by webhook id, in order of arrival; nothing else may be."""
        return {
            self.host.id: Expected(State.FIRED, deliveries=2, heard=(1,)),
            self.bot.id: Expected(State.SKIPPED),
            self.owner.id: Expected(State.FIRED, heard=(1,)),
            self.visitor_left.id: Expected(State.NOTIFIED, heard=(1,)),
            self.visitor_joined.id: Expected(State.SKIPPED),
            self.session.id: Expected(State.FIRED, deliveries=2, heard=(2,)),
        }

    def names(self) -> list[tuple[str, str]]:
        """Pair each webhook's id with what a person calls it."""
        return [
            (self.host.id, "host in /visit-7"),
            (self.bot.id, "bot in /visit-7"),
            (self.owner.id, "owner in /standup"),
            (self.visitor_left.id, "visitor left"),
            (self.visitor_joined.id, "visitor joined"),
            (self.forged.id, "forged request"),
            (self.session.id, "session begins"),
        ]
