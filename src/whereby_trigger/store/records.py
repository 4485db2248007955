"""The plain values that go into a store and come out of it. Times are seconds since the epoch."""

from msgspec import Struct

from whereby_trigger.store.rooms import SessionChange
from whereby_trigger.store.states import State


class Arrival(Struct, frozen=True):
    """Describe a webhook that is to be remembered: `room` is its room key, `reason` why it is quarantined.

    `change` is what it says of its room's session, which takes effect with the commit that stores it. Its signature may
    be good until `kept_until`: its id is remembered for as long, or a captured copy would be decided again.
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


class Added(Struct, frozen=True):
    """Tell what `add` did: the row's number in order of arrival, and whether the id was there already.

    What is `spilled` has no number yet: it is safe on a disk, and waits for the database.
    """

    seq: int
    duplicate: bool
    state: State
    spilled: bool = False


class Pending(Struct, frozen=True):
    """Describe a stored webhook that waits for its decision.

    `queued_at` is when it was received or last replayed, `takeovers` how often its replica died before deciding it,
    `attempts` how often it was blamed: recorded as being in user code, in case that ends the process.
    """

    seq: int
    id: str
    type: str
    body: bytes
    received_at: float
    queued_at: float
    attempts: int
    takeovers: int


class Decision(Struct, frozen=True):
    """Say what became of a webhook, and why in words; `errors` are the listeners that raised."""

    seq: int
    id: str
    state: State
    reason: str
    attempts: int
    decided_at: float
    errors: tuple[str, ...] = ()


class Record(Struct, frozen=True):
    """Describe a stored webhook as a person sees it."""

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


class Query(Struct, frozen=True):
    """Select stored webhooks; what is None selects everything. Newest first, at most `limit`.

    `prefix` is how an id begins; `room` is a room key or a room name with its leading slash.
    """

    ids: tuple[str, ...] | None = None
    prefix: str | None = None
    state: State | None = None
    room: str | None = None
    type: str | None = None
    limit: int | None = None
