"""The meetings: what Whereby would send, delivery by delivery, and what must become of each webhook."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, structs

from whereby_trigger.store import State
from whereby_trigger.testing import Meeting
from whereby_trigger.webhook import RoomWebhook


class MeetingStep(Struct, frozen=True):
    """Describe one delivery: what happens, what is odd about it, and what must become of its webhook.

    `heard` is the attempt that its listener must be called for, if any. `replicas`, counted from 1, receive it at the
    same time.
    """

    happening: str
    webhook: RoomWebhook
    oddity: str = ""
    answer: int = 200
    state: State | None = None
    heard: int | None = None
    replicas: tuple[int, ...] = (1,)

    def again(self, happening: str) -> "MeetingStep":
        """Return the same delivery once more."""
        return structs.replace(self, happening=happening, oddity="duplicate")


class CrashMeeting:
    """Hold the meetings during which the server is killed; `begin` is when the first person enters."""

    def __init__(self, begin: datetime) -> None:
        visit, standup = Meeting("/visit-7", begin=begin), Meeting("/standup", begin=begin)
        host, bot, owner = visit.join("host", at=0), visit.join("assistant", at=2), standup.join("owner", at=3)
        joined, left = standup.join("visitor", at=5), standup.leave("visitor", at=9)
        session, invitation = standup.start(at=10), standup.request_assistant(at=12)
        self.host = MeetingStep("a host enters /visit-7", host, state=State.FIRED, heard=1)
        self.bot = MeetingStep("the assistant itself enters /visit-7", bot, "bot", state=State.SKIPPED)
        self.owner = MeetingStep("the owner enters /standup", owner, state=State.FIRED, heard=1)
        self.left = MeetingStep("a visitor leaves /standup ...", left, "too early", state=State.NOTIFIED, heard=1)
        self.joined = MeetingStep("... whose join arrives only now", joined, "too late", state=State.SKIPPED)
        self.session = MeetingStep("the session in /standup starts", session, "then killed", state=State.FIRED, heard=2)
        self.forged = MeetingStep("a stranger invites an assistant into /standup", invitation, "forged", answer=401)
        self.before_kill: Sequence[MeetingStep] = [
            self.host,
            self.host.again("Whereby sends it again"),
            self.bot,
            self.owner,
            self.left,
            self.joined,
            self.session,
        ]
        self.after_restart: Sequence[MeetingStep] = [
            self.session.again("Whereby repeats the start of the session"),
            self.forged,
        ]

    @property
    def stored(self) -> Sequence[MeetingStep]:
        """What must be stored, in order of arrival."""
        return [step for step in self.before_kill if step.oddity != "duplicate"]


class ReplicaMeetings:
    """Hold the meetings that several replicas serve; `begin` is when the first person enters.

    Their rooms are not those of the first scenario: on a shared store its sessions would count in these.
    """

    def __init__(self, begin: datetime) -> None:
        visit, self.review = Meeting("/visit-8", begin=begin), Meeting("/review", begin=begin)
        self.joins: Sequence[MeetingStep] = [
            _to("a host enters /visit-8", visit.join("host", at=0), 1),
            _to("a visitor enters /visit-8", visit.join(at=1), 2),
            _to("another visitor enters /visit-8", visit.join(at=2), 1),
            _to("the owner enters /review", self.review.join("owner", at=3), 2),
            _to("a host enters /review", self.review.join("host", at=4), 1),
        ]
        self.at_once = _to("a visitor enters /review", self.review.join(at=5), 1, 2)
        self.ends: Sequence[MeetingStep] = [
            _to("the session in /visit-8 ends", visit.end(at=60), 3),
            _to("the session in /review ends", self.review.end(at=60), 3),
        ]

    @property
    def steps(self) -> Sequence[MeetingStep]:
        """All deliveries."""
        return [*self.joins, self.at_once, *self.ends]


def _to(happening: str, webhook: RoomWebhook, *replicas: int) -> MeetingStep:
    numbers = " and ".join(map(str, replicas))
    where = f"to replica {numbers}" if len(replicas) == 1 else f"to replicas {numbers} at once"
    return MeetingStep(happening, webhook, where, replicas=replicas)
