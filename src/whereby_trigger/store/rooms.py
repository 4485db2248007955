"""The plain values of rooms, and a store's verbs for them and for leases.

Times are seconds since the epoch; those of rooms are by the store's own clock.
"""

import math
from collections.abc import AsyncGenerator, Awaitable
from typing import Final, Protocol

from msgspec import Struct

from whereby_trigger.store.states import RoomState
from whereby_trigger.texts import fit_for_stores
from whereby_trigger.webhook import RoomSessionEnded, RoomSessionStarted, RoomWebhook, Webhook

NEWEST: Final = 2**63 - 1
"""An id above those of all rooms."""

PAGE: Final = 500
"""Rooms that are read at once: a few milliseconds, after which deliveries get their turn."""


class RoomRequest(Struct, frozen=True):
    """Ask for an assistant in a room: `webhook` is the id of the webhook that fired, None when asked by hand.

    `session_id` and `asked_at` (its createdAt) tell which sessions' ends concern the assistant.
    """

    key: str
    url: str
    webhook: str | None
    session_id: str | None
    asked_at: float


class RoomClaim(Struct, frozen=True):
    """Tell what a request met: a room that waits since now (`new`), or one in `state` already, with its owner.

    `ended` and not new: the session of the webhook that fired is over, as far as this store knows.
    """

    new: bool
    state: RoomState
    owner: str | None


# Of hundreds of thousands, the collector's walks through them would stop everything for a quarter of a second. A room
# holds nothing that could lead back to it.
class Room(Struct, frozen=True, gc=False):
    """Describe a room as it is stored; `stop` is why its assistant is asked to end.

    Where `take` gave it, `seq` is the number after which the session hears webhooks, `body` the one that fired."""

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
    errors: tuple[str, ...] = ()
    seq: int = 0
    body: bytes | None = None


class SessionChange(Struct, frozen=True):
    """Say that a session of a room began or ended, as its webhook tells; `created_at` is None where it does not."""

    key: str
    started: bool
    session_id: str | None
    created_at: float | None

    def ends(self, session_id: str | None, asked_at: float) -> bool:
        """Tell whether the assistant that was asked for in a session, at a time, is to end with this."""
        known = session_id is not None and self.session_id is not None
        later = self.created_at is not None and self.created_at > asked_at
        if self.started:
            return known and session_id != self.session_id and later
        return session_id == self.session_id if known else later


def session_change(webhook: Webhook, key: str | None) -> SessionChange | None:
    """Read from a webhook what it says of the session in its room; None where it says nothing."""
    if key is None or not isinstance(webhook, RoomSessionStarted | RoomSessionEnded):
        return None
    created_at = None if webhook.created_at is None else webhook.created_at.timestamp()
    return SessionChange(key, isinstance(webhook, RoomSessionStarted), session_of(webhook), created_at)


def session_of(webhook: RoomWebhook) -> str | None:
    """Give the id of a webhook's session, as every store can hold it."""
    id = webhook.data.room_session_id
    return None if id is None else fit_for_stores(id)


class RoomMove(Struct, frozen=True):
    """Change a room of this replica to another state; what is None stays as it is.

    One that is to wait is not taken for `delay` seconds. One that is to wait although its end was asked for has ended.
    """

    id: int
    state: RoomState
    reason: str
    pid: int | None = None
    delay: float = 0.0
    restarts: int | None = None
    errors: tuple[str, ...] = ()


class Heard(Struct, frozen=True):
    """Hold webhooks of some rooms, as room key, number and body, in the order of their numbers.

    `upto` is the number to read on from, `more` whether there may be more above it now. Nothing at or below `upto` is
    still to come; where a lower number may be committed after a higher one, it lies below numbers that are here.
    """

    webhooks: tuple[tuple[str, int, bytes], ...]
    upto: int
    more: bool


class RoomStore(Protocol):
    """Keep one open entry for each room, and the lease by which replicas own theirs."""

    def renew(self, ttl: float) -> Awaitable[bool]:
        """Extend this replica's lease to `ttl` seconds from now; False where it has run out or is gone."""
        ...

    async def rejoin(self, ttl: float) -> None:
        """Give up this replica's id, with all that it owns, and take a new one."""
        ...

    def request(self, request: RoomRequest) -> Awaitable[RoomClaim]:
        """Let a room wait for an assistant, unless it has an open entry; one that is ending gets a successor."""
        ...

    def take(self, slots: int, max_age: float = math.inf) -> Awaitable[list[Room]]:
        """Make at most `slots` waiting rooms this replica's, in order, as `starting`; none where its lease is gone.

        One that has waited for longer than `max_age` seconds is left, for `claim` to end.
        Beyond `slots` it gives those that an earlier call took before it raised StoreUnavailable.
        """
        ...

    def move(self, move: RoomMove) -> Awaitable[bool]:
        """Change a room of this replica; False where it is not this replica's, or not in a state before that one."""
        ...

    def stop(self, key: str, reason: str) -> Awaitable[RoomState | None]:
        """Ask a room's assistant to end; return the state it was in, None where the room has no open entry."""
        ...

    def rooms(self, *, limit: int | None = None, below: int = NEWEST) -> Awaitable[list[Room]]:
        """Read rooms with an id below `below`, newest first: every one, or at most `limit`.

        Of very many, all at once take seconds in which nothing else is done: `every_room` reads them page by page.
        """
        ...

    def stopping(self) -> Awaitable[list[Room]]:
        """Read this replica's rooms whose assistants are asked to end."""
        ...

    def heard(self, after: int, keys: frozenset[str]) -> Awaitable[Heard]:
        """Read the webhooks of some rooms with a number above `after`, or the first of them."""
        ...


async def every_room(store: RoomStore) -> AsyncGenerator[Room, None]:
    """Read every room, newest first, a page at a time; one that asks meanwhile may be left out."""
    below = NEWEST
    while page := await store.rooms(limit=PAGE, below=below):
        for room in page:
            yield room
        below = page[-1].id
