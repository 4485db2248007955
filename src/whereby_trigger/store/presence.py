"""What webhooks say of their room: who is in it, its session, and when that was so. Pure: both stores read these rules.

Theory
------
Each `room.client.joined` and `left` may say how many humans and bots are in its room. They arrive late, twice and in
any order, so the newest by `createdAt` counts; of two with the same time, the one that arrived later. What a room's
counts say together is a `RoomCounts`, and `merged` joins two of these: what is stored and what has just arrived. A
store may merge counts one by one or many at once.

A join that carries no count says only that somebody came. It counts like the others, as `UNCOUNTED`: who is there is
unknown until the next count. Without it, a room that was counted as empty would stay so, and lose the assistant of
those who came.

`humans_since` is never earlier than it should be. If counts arrive out of order it may be later than it should be: who
waits for a time to pass then waits longer, not shorter.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf
from typing import Final

from msgspec import Struct, structs

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

LATEST: Final = 253402300799.0
"""The last second that a datetime holds: a float near it may round up to more."""

EARLIEST: Final = -62135596800.0
"""The first second that a datetime holds."""

HIGHEST: Final = 2**31 - 1
"""The highest number of people that every store can hold."""


UNCOUNTED: Final = -1
"""The number of people, and of bots, where somebody has come, and nothing says how many are there."""


class Count(Struct, frozen=True, gc=False):
    """Hold what one webhook says of who is in its room: `at` is its createdAt, or else when it was received.

    Both numbers are UNCOUNTED if it says only that somebody has come.
    """

    key: str
    humans: int
    bots: int
    at: float
    session_id: str | None


class Presence(Struct, frozen=True, gc=False):
    """Describe who is in a room by its newest counts; everything is None until one has arrived.

    `humans` and `bots` are numbers. They and `humans_since` are None, too, after somebody has joined without a count.
    `changed_at` is the createdAt of the newest count, `humans_since` that of the first count since which `humans` has
    had this value, both aware datetimes in UTC. `session_id` is the newest count's. The end of a session changes
    nothing here.
    """

    humans: int | None = None
    bots: int | None = None
    humans_since: datetime | None = None
    changed_at: datetime | None = None
    session_id: str | None = None


UNKNOWN: Final = Presence()
"""The presence of a room of which no count has arrived."""


class RoomCounts(Struct, frozen=True, gc=False):
    """Hold what the counts of one room say together. Times are createdAt, in seconds since the epoch.

    `differed_at` is the time of the newest count with another number of humans than the newest one, or -inf.
    """

    key: str
    humans: int
    bots: int
    session_id: str | None
    humans_since: float
    changed_at: float
    differed_at: float = -inf


def counts_of(count: Count) -> RoomCounts:
    """Return what one count says."""
    return RoomCounts(count.key, count.humans, count.bots, count.session_id, count.at, count.at)


def merged(earlier: RoomCounts, later: RoomCounts) -> RoomCounts:
    """Return what two groups of counts of a room say together; `later` arrived after `earlier`."""
    if later.changed_at >= earlier.changed_at and later.humans_since == later.changed_at and later.differed_at == -inf:
        # One count that is the newest, as most are: the rule below in short.
        same = later.humans == earlier.humans
        since, differed_at = (
            (earlier.humans_since, earlier.differed_at) if same else (later.changed_at, earlier.changed_at)
        )
        return RoomCounts(later.key, later.humans, later.bots, later.session_id, since, later.changed_at, differed_at)
    newer, older = (later, earlier) if later.changed_at >= earlier.changed_at else (earlier, later)
    same = newer.humans == older.humans
    differed_at = max(newer.differed_at, older.differed_at if same else older.changed_at)
    groups = (newer, older) if same else (newer,)
    # A group whose own count differed last has settled which of two of the same time came later.
    times = [one.humans_since for one in groups if one.humans_since > differed_at or one.differed_at == differed_at]
    if same and older.changed_at > differed_at:
        times.append(older.changed_at)
    return structs.replace(newer, humans_since=min(times, default=newer.changed_at), differed_at=differed_at)


def together(counts: Iterable[Count]) -> list[RoomCounts]:
    """Return what some counts, in their order of arrival, say of each room, in the order of the rooms' keys."""
    rooms: dict[str, RoomCounts] = {}
    for count in counts:
        said = counts_of(count)
        rooms[count.key] = merged(rooms[count.key], said) if count.key in rooms else said
    return [rooms[key] for key in sorted(rooms)]


def keeps_time(stored: RoomCounts, merged: RoomCounts) -> bool:
    """Return True if the number of humans has had its value all the while, as far as is known."""
    return stored.humans == merged.humans and merged.humans_since <= stored.humans_since


def presence_of(counts: RoomCounts) -> Presence:
    """Return the presence that some counts say."""
    if counts.humans == UNCOUNTED:
        return Presence(changed_at=_datetime(counts.changed_at), session_id=counts.session_id)
    changed_at = _datetime(counts.changed_at)
    humans_since = changed_at if counts.humans_since == counts.changed_at else _datetime(counts.humans_since)
    return Presence(counts.humans, counts.bots, humans_since, changed_at, counts.session_id)


def merge(presence: Presence, count: Count) -> Presence:
    """Return a room's presence after one more count has arrived; an older one changes at most `humans_since`."""
    known = _counts_in(presence, count.key)
    said = counts_of(count)
    return presence_of(said if known is None else merged(known, said))


def _counts_in(presence: Presence, key: str) -> RoomCounts | None:
    if presence.changed_at is None:
        return None
    since, changed_at = presence.humans_since or presence.changed_at, presence.changed_at.timestamp()
    humans = UNCOUNTED if presence.humans is None else presence.humans
    bots = UNCOUNTED if presence.bots is None else presence.bots
    return RoomCounts(key, humans, bots, presence.session_id, since.timestamp(), changed_at)


def _datetime(seconds: float) -> datetime:
    if not EARLIEST <= seconds <= LATEST:
        seconds = min(max(seconds, EARLIEST), LATEST)
    return datetime.fromtimestamp(seconds, UTC)


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

COUNTING_WEBHOOKS: Final = (RoomClientJoined, RoomClientLeft)
"""The webhooks that may say who is in a room."""


def session_change(webhook: Webhook, key: str | None, received_at: float) -> SessionChange | None:
    """Return what a webhook says of the session in its room, or None if it says nothing."""
    if key is None or not isinstance(webhook, SESSION_WEBHOOKS):
        return None
    started = isinstance(webhook, RoomSessionStarted)
    return SessionChange(key, started, session_of(webhook), created_at(webhook, received_at))


def count_in(webhook: Webhook, key: str | None, received_at: float) -> Count | None:
    """Return who is in a room by a webhook, or None if it carries no counts, or impossible ones."""
    said = presence_in(webhook, key, received_at)
    return None if said is None or said.humans == UNCOUNTED else said


def presence_in(webhook: Webhook, key: str | None, received_at: float) -> Count | None:
    """Return what a webhook says of the presence in a room: its count, or only that somebody has come, or None.

    Whereby may leave the counts out of a join. Then nothing is known of how many are there, but the room is not empty.
    """
    if key is None or not isinstance(webhook, COUNTING_WEBHOOKS):
        return None
    humans, bots = webhook.data.present or (UNCOUNTED, UNCOUNTED)
    if not (0 <= humans <= HIGHEST and 0 <= bots <= HIGHEST) or (humans == 0 and _denies_itself(webhook, bots)):
        if not isinstance(webhook, RoomClientJoined) or not is_human(webhook):
            return None
        humans = bots = UNCOUNTED
    at = created_at(webhook, received_at)
    return Count(key, humans, bots, received_at if at is None else at, session_of(webhook))


def _denies_itself(webhook: RoomClientJoined | RoomClientLeft, bots: int) -> bool:
    """Return True if counts without people contradict the join that carries them: they would end an assistant."""
    if not isinstance(webhook, RoomClientJoined):
        return False
    is_person = bool(webhook.data.role_name) and is_human(webhook)
    return is_person or bots == 0


def session_of(webhook: RoomWebhook) -> str | None:
    """Return the id of a webhook's session, as every store can hold it."""
    id = webhook.data.room_session_id
    return None if id is None else storable_text(id)
