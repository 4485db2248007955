"""The verdict on one delivery, from its headers and its body only: no clock, no I/O, no logging.

An unsigned request is judged by its head. A tunnel, a proxy and a browser all connect from this machine: the peer's
address proves nothing, but the headers that they add do. A proxy that adds none and rewrites `Host` looks like a local
client: only a secret keeps its requests out.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

from whereby_trigger.errors import DecodeError, SignatureError
from whereby_trigger.store.presence import SESSION_WEBHOOKS, presence_in, session_change
from whereby_trigger.store.records import Arrival, RefusalReason
from whereby_trigger.store.states import State
from whereby_trigger.webhook import RoomIdentity, Webhook, decode, identify, redacted, room_of, verify

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


LOCAL_HOST = re.compile(rb"(localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)

PROXIES = frozenset((b"forwarded", b"via", b"cdn-loop", b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-remote-user"))
"""Header names that proxies, tunnels and load balancers add."""

PROXY_PREFIXES = (
    b"x-forwarded",
    b"x-original-",
    b"x-real-",
    b"x-client-",
    b"x-cluster-",
    b"x-proxy",
    b"x-envoy-",
    b"x-azure-",
    b"x-appengine-",
    b"x-arr-",
    b"x-amz-",
    b"x-vercel-",
    b"x-nf-",
    b"cf-",
    b"fastly-",
    b"fly-",
    b"ngrok-",
    b"tailscale-",
    b"proxy-",
)
PROXY_SUFFIXES = (b"-ip", b"-addr", b"-addr-for", b"-clientip", b"-forwarded-for")
"""Prefixes and suffixes of such names: X-Real-IP, True-Client-IP, CF-Connecting-IP, Remote-Addr and similar."""

PAGES = frozenset((b"origin", b"referer"))
"""Header names that a browser adds to what a web page sends. Source: Fetch Standard, Origin; RFC 9110, 10.1.3."""


def why_not_local(headers: Sequence[tuple[bytes, bytes]], http_version: str = "1.1") -> str | None:
    """Return why a request may come from elsewhere, or None if nothing shows it.

    Names are lower-cased; values have no whitespace around them.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or not LOCAL_HOST.fullmatch(hosts[0]):
        return "no secret is set, and the request's Host is not this machine"
    if http_version == "1.0":
        # By default nginx speaks HTTP/1.0 to the server behind it, and adds no header.
        return "no secret is set, and the request is HTTP/1.0, which proxies speak"
    for name, value in headers:
        if name in PAGES or (name == b"sec-fetch-site" and value.lower() != b"none"):
            return "no secret is set, and the request came from a web page"
        if name in PROXIES or name.startswith(PROXY_PREFIXES) or name.endswith(PROXY_SUFFIXES):
            return "no secret is set, and the request came through a proxy or tunnel"
    return None
