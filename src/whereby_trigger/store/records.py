"""The plain values that go into a store and come out of it.

Times are seconds since the epoch; those of rooms are by the store's own clock.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from whereby_trigger.store.presence import UNKNOWN, Count, Presence, RoomCounts, SessionChange
from whereby_trigger.store.states import ReplicaEnding, RoomState, RunOutcome, State

NEWEST: Final = 2**63 - 1
"""An id above every room's."""

PAGE: Final = 500
"""Rooms read at once: this takes a few milliseconds, after which deliveries get their turn."""


class RoomRequest(Struct, frozen=True):
    """Ask for an assistant in a room. `webhook` is the id of the webhook that fired, or None if asked by hand.

    `session_id` and `asked_at` (the webhook's createdAt) say which sessions' ends concern the assistant.
    """

    key: str
    url: str
    webhook: str | None
    session_id: str | None
    asked_at: float


class RoomClaim(Struct, frozen=True):
    """Hold what a request met: a room that waits from now on (`new`), or one already in `state`, with its owner.

    If the state is `ended` and the room not new, the session of the webhook that fired is over. A `successor` waits
    until the assistant of the room has left. An `outdated` one starts nothing: a newer session has the room.
    """

    new: bool
    state: RoomState
    owner: str | None
    successor: bool = False
    outdated: bool = False


# With hundreds of thousands of rooms, each garbage collection would stop everything for a quarter of a second. A room
# holds nothing that could refer back to it.
class Room(Struct, frozen=True, gc=False):
    """Describe a room as it is stored; `stop` is why its assistant is asked to end.

    In a room that `take` returned, `seq` is the number after which the session hears webhooks, `body` is the webhook
    that fired, and `presence` is who was in the room then.
    """

    id: int
    key: str
    url: str
    state: RoomState
    owner: str | None
    webhook: str | None
    attempt: int
    restarts: int
    pid: int | None
    stop: str | None
    reason: str
    queued_at: float
    since: float
    seq: int = 0
    body: bytes | None = None
    presence: Presence = UNKNOWN


class RunReport(Struct, frozen=True):
    """Report how a run ended, as its replica saw it; an `outcome` of None is what its room's new state implies.

    `exception` is the type that a coroutine raised; `output` is what it raised, or the last lines of stderr.
    """

    outcome: RunOutcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    exception: str | None = None
    output: str = ""


class RoomMove(Struct, frozen=True):
    """Move a room of this replica to another state; what is None stays as it is.

    A room moved to `waiting` is not taken for `delay` seconds. If its end was asked for, it has ended instead. `run` is
    recorded if the move ends a run.
    """

    id: int
    state: RoomState
    reason: str
    pid: int | None = None
    delay: float = 0.0
    restarts: int | None = None
    run: RunReport = RunReport()


class RunRecord(Struct, frozen=True, gc=False):
    """Describe a run as it is stored; `entry` is the id of the Room that it belongs to.

    `replica` is None in a store's oldest runs. `live_at` is None if the assistant was never live. Until the run ends,
    `ended_at` and `outcome` are None. `output` is what it raised or its last lines of stderr, which may hold names: it
    is never logged.
    """

    id: int
    entry: int
    key: str
    webhook: str | None
    replica: str | None
    attempt: int
    pid: int | None
    started_at: float
    live_at: float | None
    ended_at: float | None
    outcome: RunOutcome | None
    reason: str
    exit_code: int | None
    signal: int | None
    exception: str | None
    output: str


class RunQuery(Struct, frozen=True):
    """Select runs, newest first, at most `limit`; a field that is None selects everything.

    `entry` is a Room's id. `room` is a room key, or a room name with its leading slash. Runs match that ended at or
    after `since`, or have not ended, and that started before `until`.
    """

    entry: int | None = None
    room: str | None = None
    since: float | None = None
    until: float | None = None
    limit: int | None = None


class ReplicaRecord(Struct, frozen=True, gc=False):
    """Describe a replica: when it started, and when and how it ended, both None if nobody has seen that.

    `seen_at` is when it last showed that it lives, None if its lease is given up.
    """

    id: str
    started_at: float
    ended_at: float | None
    ending: ReplicaEnding | None
    seen_at: float | None


class ActionKind(StrEnum):
    """Name what a person did by hand."""

    REPLAY = "replay"
    DRY_RUN = "dry run"
    """A predicate was asked about a stored webhook, without effect."""

    START = "start"
    STOP = "stop"


class ActionRecord(Struct, frozen=True):
    """Describe what a person did by hand: when, through what (`actor`), and to which room and webhook.

    It is stored before it takes effect. `action` is an `ActionKind`, or what a newer program calls one. An `id` that
    comes twice counts once.
    """

    id: str
    at: float
    actor: str
    action: str
    room: str | None
    webhook: str | None


class ActionQuery(Struct, frozen=True):
    """Select what people did by hand from `since` until `until`, newest first, at most `limit`.

    `room` is a room key; a field that is None selects everything.
    """

    room: str | None = None
    webhook: str | None = None
    since: float = 0.0
    until: float = math.inf
    limit: int = 100


class RoomQuery(Struct, frozen=True):
    """Select the entries of rooms, newest first, at most `limit`; a field that is None selects everything.

    `room` is a room key, or a room name with its leading slash; `webhooks` are the webhooks that fired. With `open`,
    only entries match that are not over. Entries match that were over at or after `since`, or are open, and that were
    asked for before `until`. With `owner`, only entries match that this replica has now.
    """

    id: int | None = None
    room: str | None = None
    webhooks: tuple[str, ...] | None = None
    state: RoomState | None = None
    open: bool = False
    since: float | None = None
    until: float | None = None
    limit: int | None = None
    owner: str | None = None


class WebhooksAfter(Struct, frozen=True):
    """Hold webhooks of some rooms, as room key, number and body, in the order of their numbers.

    `cursor` is the number to read on from; `more` is True if there may be more above it now. Nothing at or below the
    cursor is still to come. If a lower number may be committed after a higher one, the cursor lies below numbers that
    are here.
    """

    webhooks: tuple[tuple[str, int, bytes], ...]
    cursor: int
    more: bool


class Arrival(Struct, frozen=True):
    """Describe a webhook to store: `room` is its room key, `reason` why it is quarantined.

    `change` is what it says of its room's session, which takes effect with the commit that stores it, and `count` who
    is in the room by it, or None if this program does not use presence. Its signature may be valid until `kept_until`:
    its id is remembered for as long, or a captured copy would be decided again.
    """

    id: str
    type: str
    room: str | None
    body: bytes
    received_at: float
    state: State = State.PENDING
    reason: str = ""
    change: SessionChange | None = None
    kept_until: float = 0.0
    count: Count | None = None


class Added(Struct):
    """Hold what `add` did: the row's number in order of arrival, and whether the id was there already.

    A `spilled` webhook has no number yet: it is safe on a disk, and waits for the database. `effect` is what the
    webhook did to its room's assistant, in words, or "". `counts` is who is in its room as of the commit that stored
    it, if it carried a count itself, or None. `owner` is the replica that it was stored for, or "" if it was there
    already or is spilled.
    """

    seq: int
    duplicate: bool
    state: State
    owner: str = ""
    spilled: bool = False
    effect: str = ""
    counts: RoomCounts | None = None


class Pending(Struct, frozen=True):
    """Describe a stored webhook that waits for its decision.

    `queued_at` is when it was received or last replayed, `takeovers` how often another replica has taken it over, and
    `crashes` how often because its replica had died. `attempts` is how often it was blamed: recorded as being in user
    code, in case that ends the process. If its hold has begun, it did so `held_for` seconds ago, and is due in `due_in`
    seconds, by the store's clock; both are else None. `effect` is what it did to its room's assistant when it was
    stored, in words. `owner` is the replica that is to decide it.
    """

    seq: int
    owner: str
    id: str
    type: str
    body: bytes
    received_at: float
    queued_at: float
    attempts: int
    takeovers: int
    held_for: float | None = None
    due_in: float | None = None
    effect: str = ""
    crashes: int = 0


class Decision(Struct, frozen=True):
    """Hold what became of a webhook, and why in words; `errors` are the listeners that raised.

    `body` replaces the stored body in the same commit, unless it is None: it is the redacted one.
    """

    seq: int
    id: str
    state: State
    reason: str
    attempts: int
    decided_at: float
    errors: tuple[str, ...] = ()
    body: bytes | None = None


class Holding(Struct, frozen=True):
    """Ask for a webhook to be held for `seconds`, and say in words what for; `errors` are the listeners that raised.

    The hold begins when it is stored. A webhook whose hold began before keeps that time, and when it is due.
    """

    seq: int
    id: str
    reason: str
    seconds: float
    errors: tuple[str, ...] = ()


class Record(Struct, frozen=True):
    """Describe a stored webhook as a person sees it; `due_at` is when its hold ends, None if none has begun.

    `body_removed_at` is when its body lost what it says of people, since `body_retention` was over or somebody is
    forgotten, or None.
    """

    id: str
    type: str
    room: str | None
    state: State
    reason: str
    attempts: int
    deliveries: int
    received_at: float
    decided_at: float | None
    owner: str | None
    errors: tuple[str, ...]
    body: bytes
    due_at: float | None = None
    body_removed_at: float | None = None
    seq: int = 0


class PastWebhook(Struct, frozen=True, gc=False):
    """Describe a stored webhook with what bears on its decision, so that it can be decided again without effect.

    `queued_at` is when it was received or last replayed. If its hold has begun, it did so at `held_since` and was due
    at `due_at`, by the store's clock; both are else None.
    """

    seq: int
    id: str
    type: str
    room: str | None
    body: bytes
    state: State
    reason: str
    received_at: float
    queued_at: float
    decided_at: float | None
    held_since: float | None
    due_at: float | None


class Query(Struct, frozen=True):
    """Select stored webhooks, newest first, at most `limit`; a field that is None selects everything.

    `prefix` is how an id begins; `room` is a room key or a room name with its leading slash. Webhooks match that were
    received at or after `since`, and before `until`.
    """

    ids: tuple[str, ...] | None = None
    prefix: str | None = None
    state: State | None = None
    room: str | None = None
    type: str | None = None
    since: float | None = None
    until: float | None = None
    limit: int | None = None


class RefusalReason(StrEnum):
    """Name why a delivery was not let in. The list is fixed: metrics and the store count by it."""

    NO_SIGNATURE = "no signature"
    MALFORMED_SIGNATURE = "malformed signature"
    WRONG_SIGNATURE = "wrong signature"
    STALE_SIGNATURE = "stale signature"
    FUTURE_SIGNATURE = "signature from the future"
    NOT_LOCAL = "no secret is set"
    """No secret is set, and the request does not come from this machine."""

    NO_WEBHOOK = "not a webhook"
    INVALID_HTTP = "invalid HTTP"
    WRONG_PATH = "wrong path"
    WRONG_METHOD = "wrong method"
    INCOMPLETE = "incomplete"
    """It was not complete in time."""

    TOO_LARGE = "too large"
    CROWDED = "too many deliveries"
    STORE_FAILED = "the store failed"
    STORE_SLOW = "the store was too slow"
    INTERNAL_ERROR = "an error of the trigger"
    NOT_RUNNING = "not running"
    """It is mounted without its lifespan, or could not be started."""

    STALLED = "stalled"
    """The connection was closed, without an answer: a request in it did not go on."""

    HEADERS_TOO_LARGE = "headers too large"
    """The connection was closed, without an answer."""

    TOO_MANY_CONNECTIONS = "too many connections"
    """The connection was closed, without an answer, to make room for others."""

    @property
    def status(self) -> int:
        """The status of the answer, or CLOSED if the connection was closed without one."""
        return _STATUSES[self]


CLOSED: Final = 0
"""The status of a refusal without an answer."""

_STATUSES: Final[Mapping[RefusalReason, int]] = {
    RefusalReason.NO_SIGNATURE: 401,
    RefusalReason.MALFORMED_SIGNATURE: 401,
    RefusalReason.WRONG_SIGNATURE: 401,
    RefusalReason.STALE_SIGNATURE: 401,
    RefusalReason.FUTURE_SIGNATURE: 401,
    RefusalReason.NOT_LOCAL: 401,
    RefusalReason.NO_WEBHOOK: 400,
    RefusalReason.INVALID_HTTP: 400,
    RefusalReason.WRONG_PATH: 404,
    RefusalReason.WRONG_METHOD: 405,
    RefusalReason.INCOMPLETE: 408,
    RefusalReason.TOO_LARGE: 413,
    RefusalReason.CROWDED: 503,
    RefusalReason.STORE_FAILED: 503,
    RefusalReason.STORE_SLOW: 503,
    RefusalReason.INTERNAL_ERROR: 503,
    RefusalReason.NOT_RUNNING: 503,
    RefusalReason.STALLED: CLOSED,
    RefusalReason.HEADERS_TOO_LARGE: CLOSED,
    RefusalReason.TOO_MANY_CONNECTIONS: CLOSED,
}

MINUTE: Final = 60


class RefusalCount(Struct, frozen=True, gc=False):
    """Count what one replica refused for one reason in one minute, which began at `minute`.

    `reason` is a `RefusalReason`, or what a newer program calls one; `status` is 0 if there was no answer.
    """

    minute: int
    reason: str
    replica: str
    status: int
    count: int


class Workload(Struct, frozen=True):
    """Count what the store has for all replicas now: webhooks that are pending or on hold, and rooms by open state.

    `oldest` is when the oldest pending webhook was received or last replayed, or None.
    """

    pending: int
    held: int
    oldest: float | None
    rooms: Mapping[RoomState, int]


class Rewrite(Struct, frozen=True):
    """Replace the body of a decided webhook by one from which something was removed."""

    seq: int
    body: bytes


class OldBody(Struct, frozen=True):
    """Hold the body of a decided webhook, by its number and when it was received; None if it was replaced already."""

    seq: int
    received_at: float
    body: bytes | None
