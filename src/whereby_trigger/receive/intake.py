"""The verdict on one delivery, from its headers and its body only: no clock, no I/O, no logging."""

from collections.abc import Sequence

from msgspec import Struct

from whereby_trigger.errors import DecodeError, SignatureError
from whereby_trigger.receive.exposure import why_not_local
from whereby_trigger.store.facts import SESSION_WEBHOOKS, presence_in, session_change
from whereby_trigger.store.records import Arrival, RefusalReason
from whereby_trigger.store.states import State
from whereby_trigger.webhook import (
    RoomIdentity,
    Webhook,
    decode,
    identify,
    redacted,
    room_of,
    verify,
)

ON_ITS_WAY = 60.0
"""Seconds within which a delivery that was let in has reached the store."""

Headers = Sequence[tuple[bytes, bytes]]

OWS = b" \t"
"""What may stand around a header's value and is no part of it. Source: RFC 9110, 5.5."""


def declared_length(headers: Headers) -> int | None:
    """Return how many bytes a request says its body has, or None if it does not say."""
    length = None
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            length = int(value[:20])
        elif name == b"transfer-encoding":
            return None
    return length


class Rules(Struct, frozen=True):
    """Hold what a verdict depends on; without secrets, only this machine is served.

    `presence` is True if this program uses who is in a room. `redact` names the fields that a stored body
    loses with its decision; a body that cannot be decoded loses them at once.
    """

    secrets: tuple[str, ...] = ()
    allow_unsigned: bool = False
    tolerance: float = 300.0
    subdomain: str | None = None
    presence: bool = False
    redact: tuple[str, ...] = ()


class Accepted(Struct, frozen=True):
    """Hold an authentic delivery that must be stored; `webhook` is None if it could not be decoded."""

    arrival: Arrival
    webhook: Webhook | None
    room: RoomIdentity | None


class Rejected(Struct, frozen=True):
    """Hold why a delivery is not let in, in words as well; `skew` is how far a right signature was off, in seconds."""

    why: RefusalReason
    reason: str
    skew: float | None = None

    @property
    def status(self) -> int:
        return self.why.status


def intake(headers: Headers, body: bytes, now: float, rules: Rules, http_version: str = "1.1") -> Accepted | Rejected:
    """Decide whether one delivery is let in.

    `headers` are pairs of lower-cased names and values without the whitespace around them, none from a trailer; `now`
    is seconds since the epoch. Source: Whereby docs, Validating events.
    """
    refusal = _authenticate(headers, body, now, rules, http_version)
    if refusal is not None:
        return refusal
    # A signature may be `tolerance` ahead of our clock, and is valid for `tolerance` after that.
    kept_until = now + 2 * rules.tolerance + ON_ITS_WAY if rules.secrets else 0.0
    try:
        webhook = decode(body)
    except DecodeError as error:
        if not rules.secrets:
            return Rejected(RefusalReason.NO_WEBHOOK, str(error))
        left = redacted(body, rules.redact)
        odd = Arrival(identify(body), "", None, left, now, State.QUARANTINED, str(error), kept_until=kept_until)
        return Accepted(odd, None, None)
    room = room_of(webhook, rules.subdomain)
    key = None if room is None else room.key
    change = session_change(webhook, key, now) if isinstance(webhook, SESSION_WEBHOOKS) else None
    count = presence_in(webhook, key, now) if rules.presence else None
    arrival = Arrival(webhook.id, webhook.type, key, body, now, change=change, kept_until=kept_until, count=count)
    return Accepted(arrival, webhook, room)


def _authenticate(headers: Headers, body: bytes, now: float, rules: Rules, http_version: str) -> Rejected | None:
    if not rules.secrets:
        reason = None if rules.allow_unsigned else why_not_local(headers, http_version)
        return None if reason is None else Rejected(RefusalReason.NOT_LOCAL, reason)
    signature = None
    for name, value in headers:
        if name == b"whereby-signature":
            if signature is not None:
                return Rejected(RefusalReason.MALFORMED_SIGNATURE, "more than one signature header")
            signature = value
    try:
        verify(signature, body, rules.secrets, now, rules.tolerance)
    except SignatureError as error:
        # A signature is wrong in few ways, and a reason has the name of each.
        return Rejected(RefusalReason(str(error)), str(error), error.skew)
    return None
