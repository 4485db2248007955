"""What the second act found: which replica's assistant was in which room, and when; and the checks on it."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

from whereby_trigger.cli.demo.crowd import Crowd
from whereby_trigger.cli.demo.findings import Check, Sent
from whereby_trigger.store import Record, Room, RoomState, State

DRAINING = "the replica is draining"
SESSION_OVER = "the session has ended"


class Stay(Struct, frozen=True):
    """Tell of an assistant in a room, in seconds since 1970; `left` is None where it noted no leaving, nor `why`."""

    room: str
    replica: int
    attempt: int
    came: float
    left: float | None = None
    why: str = ""


class Outage(Struct, frozen=True):
    """Tell of the database's death: who was in which room then, and when what was delivered meanwhile was answered.

    `up_at` is when the database was told to start again. Both are seconds since 1970.
    """

    stays: Sequence[Stay]
    up_at: float
    answered_at: float


class Observed(Struct, frozen=True):
    """Hold what was observed. `stays_before` are those before the kill of the replica `killed`; records by arrival.

    `drained` is the replica that was told to stop, `exit_code` how it ended, and `heir` the one that was there then;
    `takeover_within` are the seconds in which what the killed one had is to be another's.
    """

    sent: Sequence[Sent]
    records: Sequence[Record]
    stays_before: Sequence[Stay]
    stays: Sequence[Stay]
    killed: int
    killed_at: float
    drained: int
    exit_code: int | None
    heir: int
    rooms: Sequence[Room]
    takeover_within: float
    outage: Outage | None = None

    def stays_in(self, room: str) -> list[Stay]:
        """Give the stays in a room, in the order in which they came."""
        return sorted((stay for stay in self.stays if stay.room == room), key=lambda stay: stay.came)

    def left(self, stay: Stay) -> float:
        """Say when a stay was over: by itself, by the kill, or not at all."""
        if stay.left is not None:
            return stay.left
        return self.killed_at if stay.replica == self.killed else math.inf


def checks(crowd: Crowd, observed: Observed) -> list[Check]:
    """Set what was observed against what must be."""
    was_away = observed.outage is not None
    rooms = crowd.rooms(outage=was_away)
    orphaned = [stay.room for stay in observed.stays_before if stay.replica == observed.killed]
    within = f"within {observed.takeover_within:g} s"
    return [
        Check(
            "Each delivery was answered 200, whichever replica it reached",
            [200 for call in crowd.played(outage=was_away) for _ in call.replicas],
            [sent.answer for sent in observed.sent],
        ),
        Check(
            "What reached both replicas at once is one webhook, delivered twice, and was decided once",
            [(len(crowd.at_once.replicas), 1, State.FIRED.value)],
            _fates(observed.records, crowd.at_once.step.webhook.id),
        ),
        *_outage_checks(observed),
        Check(
            "One assistant came to each room, though several people did, told to both replicas",
            dict.fromkeys(rooms, 1),
            {room: sum(stay.room == room for stay in observed.stays_before) for room in rooms},
        ),
        Check(
            "One join of each room started it; the reasons of the others say that it was there",
            {room: (1, joins - 1) for room, joins in rooms.items()},
            {room: _claims(observed.records, room) for room in rooms},
        ),
        Check(
            f"What the killed replica had, the other took over {within}",
            dict.fromkeys(orphaned, (observed.drained, within)),
            {room: _taken_over(observed, room) for room in orphaned},
        ),
        Check("The replica that was told to stop drained, and exited with 0", 0, observed.exit_code),
        Check(
            "Its assistants were told why, and the third replica's came in their place",
            dict.fromkeys(rooms, (DRAINING, observed.heir)),
            {room: _handed_over(observed, room) for room in rooms},
        ),
        Check("At no time were two assistants in a room", [], [room for room in rooms if _overlap(observed, room)]),
        Check(
            "When the sessions ended, the assistants left, and the rooms are over",
            dict.fromkeys(rooms, (SESSION_OVER, RoomState.ENDED.value, SESSION_OVER)),
            {room: _ended(observed, room) for room in rooms},
        ),
    ]


def _outage_checks(observed: Observed) -> list[Check]:
    outage = observed.outage
    if outage is None:
        return []
    return [
        Check(
            "While the database was dead and started again, every assistant stayed where it was",
            list(outage.stays),
            list(observed.stays_before),
        ),
        Check(
            "What was delivered meanwhile waited, and was answered when the database was back",
            "after its start",
            "after its start" if outage.answered_at >= outage.up_at else "before its start",
        ),
    ]


def _fates(records: Iterable[Record], id: str) -> list[tuple[int, int, str]]:
    """Tell of each row with an id how often it was delivered and decided, and as what."""
    return [(row.deliveries, row.attempts, row.state.value) for row in records if row.id == id]


def _claims(records: Iterable[Record], room: str) -> tuple[int, int]:
    """Count the joins that started the room's assistant, and those that found it."""
    reasons = [row.reason for row in records if row.type == "room.client.joined" and (row.room or "").endswith(room)]
    started = sum(reason.endswith("; an assistant starts") for reason in reasons)
    found = sum("; room has an assistant" in reason or "; the room waits for an" in reason for reason in reasons)
    return started, found


def _taken_over(observed: Observed, room: str) -> tuple[int, str] | None:
    for stay in observed.stays_in(room):
        if stay.replica != observed.killed:
            seconds = stay.came - observed.killed_at
            within = seconds <= observed.takeover_within
            return stay.replica, f"within {observed.takeover_within:g} s" if within else f"after {seconds:.1f} s"
    return None


def _handed_over(observed: Observed, room: str) -> tuple[str, int] | None:
    stays = observed.stays_in(room)
    for stay, following in pairwise(stays):
        if stay.replica == observed.drained:
            return stay.why, following.replica
    return None


def _overlap(observed: Observed, room: str) -> bool:
    stays = observed.stays_in(room)
    return any(following.came < observed.left(stay) for stay, following in pairwise(stays))


def _ended(observed: Observed, room: str) -> tuple[str, str, str] | None:
    stays = observed.stays_in(room)
    entry = next((entry for entry in observed.rooms if entry.url.endswith(room)), None)
    return (stays[-1].why, entry.state.value, entry.reason) if stays and entry else None
