"""What a webhook says of its room: its session, who is there, and when that was so."""

from math import inf
from typing import Final

from msgspec import Struct

from whereby_trigger.store.presence import HIGHEST, UNCOUNTED, Count
from whereby_trigger.text import storable_text
from whereby_trigger.webhook import (
    RoomClientJoined,
    RoomClientLeft,
    RoomSessionEnded,
    RoomSessionStarted,
    RoomWebhook,
    Webhook,
    is_human,
)


class SessionChange(Struct, frozen=True):
    """Hold what a webhook says of its room's session: it began or ended, at `created_at` if the webhook says when."""

    key: str
    started: bool
    session_id: str | None
    created_at: float | None

    @property
    def time(self) -> float:
        """When it was created, or infinity if that is unknown."""
        return inf if self.created_at is None else self.created_at

    def ends(self, session_id: str | None, asked_at: float) -> bool:
        """Return True if this ends the assistant that was asked for in a session, at a time."""
        known = session_id is not None and self.session_id is not None
        later = self.created_at is not None and self.created_at > asked_at
        if self.started:
            return known and session_id != self.session_id and later
        return session_id == self.session_id if known else later


AHEAD: Final = 3600.0
"""Seconds by which a createdAt may be ahead of our clock: far more than the clocks of two servers differ."""


def created_at(webhook: Webhook, received_at: float) -> float | None:
    """Return when a webhook was created, or None if it does not say.

    One from the future counts as created when it was received: nothing that follows would be newer than it.
    """
    if webhook.created_at is None:
        return None
    created = webhook.created_at.timestamp()
    return created if created <= received_at + AHEAD else received_at


SESSION_WEBHOOKS: Final = (RoomSessionStarted, RoomSessionEnded)
"""The webhooks that say something of a room's session."""


def session_change(webhook: Webhook, key: str | None, received_at: float) -> SessionChange | None:
    """Return what a webhook says of the session in its room, or None if it says nothing."""
    if key is None or not isinstance(webhook, SESSION_WEBHOOKS):
        return None
    started = isinstance(webhook, RoomSessionStarted)
    return SessionChange(key, started, session_of(webhook), created_at(webhook, received_at))


def count_in(webhook: Webhook, key: str | None, received_at: float) -> Count | None:
    """Return who is in a room by a webhook, or None if it carries no counts, or impossible ones."""
    if key is None or not isinstance(webhook, RoomClientJoined | RoomClientLeft):
        return None
    present = webhook.data.present
    if present is None:
        return None
    humans, bots = present
    if not (0 <= humans <= HIGHEST and 0 <= bots <= HIGHEST) or _denies_itself(webhook, humans, bots):
        return None
    at = created_at(webhook, received_at)
    return Count(key, humans, bots, received_at if at is None else at, session_of(webhook))


def presence_in(webhook: Webhook, key: str | None, received_at: float) -> Count | None:
    """Return what a webhook says of the presence in a room: its count, or only that somebody has come, or None.

    Whereby may leave the counts out of a join. Then nothing is known of how many are there, but the room is not empty.
    """
    count = count_in(webhook, key, received_at)
    if count is not None or key is None or not isinstance(webhook, RoomClientJoined) or not is_human(webhook):
        return count
    at = created_at(webhook, received_at)
    return Count(key, UNCOUNTED, UNCOUNTED, received_at if at is None else at, session_of(webhook))


def _denies_itself(webhook: RoomClientJoined | RoomClientLeft, humans: int, bots: int) -> bool:
    """Return True if counts after a join say that nobody has joined: they would end an assistant of people."""
    if not isinstance(webhook, RoomClientJoined):
        return False
    is_person = bool(webhook.data.role_name) and is_human(webhook)
    return humans == 0 if is_person else humans + bots == 0


def session_of(webhook: RoomWebhook) -> str | None:
    """Return the id of a webhook's session, as every store can hold it."""
    id = webhook.data.room_session_id
    return None if id is None else storable_text(id)
