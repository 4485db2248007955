"""Who may read the inspector, and who may act: rules on the head of a request, sessions, and tries to log in.

Pure but for the random nonces; time is an argument.

Three ways to let somebody in
-----------------------------
LOCAL: programs on this machine only. A page of another site may run in the browser here, and a tunnel or a proxy may
lead here: both show in the headers. TOKEN: whoever knows the token. HOST: whoever the host app lets through.
In each, a request that changes something must come from the inspector's own page: same origin, and with the token
against forgery that belongs to the session's cookie.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from whereby_trigger.receive.exposure import LOCAL_HOST, PROXIES, PROXY_PREFIXES, PROXY_SUFFIXES

COOKIE: Final = "whereby_trigger_inspector"
SESSION_SECONDS: Final = 12 * 3600
"""How long a session lasts: a working day."""

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    # Not no-referrer: a browser then sends `Origin: null` with a form, which cannot be told from another site's.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""What every answer carries."""

_HOST: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9._-]{0,252})|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?", re.IGNORECASE)

WRONG_LOGINS: Final = 5
"""Wrong tokens in a row that one address may send before it has to wait."""

WRONG_LOGINS_IN_ALL: Final = 60
"""Wrong tokens that all addresses together may send before everybody has to wait."""

FORGIVEN_AFTER: Final = 60.0
"""Seconds after which a wrong token no longer counts."""

ADDRESSES: Final = 1024
"""Addresses that are remembered at most; the oldest is forgotten first, and still counts among all."""


class Access(StrEnum):
    """Name who is let in: programs of this machine, those with the token, or those that the host app lets through."""

    LOCAL = "local"
    TOKEN = "token"  # noqa: S105
    HOST = "host"


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach what listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class RequestHead(Struct, frozen=True):
    """Hold what the rules read of a request: its headers, with lower-cased names, and the address of the peer."""

    method: str
    scheme: str
    headers: tuple[tuple[bytes, bytes], ...]
    peer: str | None = None

    def all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1").strip() for header, value in self.headers if header == name]

    def first(self, name: bytes) -> str:
        return next(iter(self.all(name)), "")


def why_refused(head: RequestHead, access: Access) -> str | None:
    """Return why a request is refused whatever it asks for, or None. It says nothing of who sent it."""
    hosts = head.all(b"host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return "the request's Host header is missing or is not a host name"
    if access is Access.LOCAL and (reason := _why_not_local(head, hosts[0])) is not None:
        return reason
    return _why_from_another_site(head, hosts[0])


def _why_not_local(head: RequestHead, host: str) -> str | None:
    if head.peer is not None and not is_loopback(head.peer):
        return "the inspector serves this machine only: set WHEREBY_TRIGGER_INSPECTOR_TOKEN to reach it from others"
    if not LOCAL_HOST.fullmatch(host.encode("latin-1")):
        return "the request's Host is not this machine: open the inspector as http://127.0.0.1 and its port"
    for name, _ in head.headers:
        if name in PROXIES or name.startswith(PROXY_PREFIXES) or name.endswith(PROXY_SUFFIXES):
            return "the request came through a proxy or a tunnel: set WHEREBY_TRIGGER_INSPECTOR_TOKEN to allow that"
    return None


def _why_from_another_site(head: RequestHead, host: str) -> str | None:
    reads = head.method in ("GET", "HEAD")
    for origin in head.all(b"origin"):
        # The scheme is not compared: behind a proxy that ends TLS, this process sees http.
        if origin.partition("://")[2].lower() != host.lower():
            return "the request came from a page of another site"
    site = head.first(b"sec-fetch-site").lower()
    if site in ("", "same-origin", "none"):
        return None
    # A link on another page may lead here: that page cannot read what the browser then shows.
    leads_here = head.first(b"sec-fetch-mode").lower() == "navigate"
    in_a_window = head.first(b"sec-fetch-dest").lower() == "document"
    return None if reads and leads_here and in_a_window else "the request came from a page of another site"


class LoginSession(Struct, frozen=True):
    """Describe a session: a nonce of its own, when it ends, in seconds since the epoch, and if it is logged in."""

    nonce: str
    ends_at: int
    logged_in: bool


class Keys:
    """Sign sessions and tokens against forgery.

    With a token, all processes that know it accept each other's sessions, and a new token ends all of them. Without
    one, a session lasts as long as the process.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._key: bytes | None = None

    @property
    def _signing(self) -> bytes:
        if self._key is None:
            # Slow on purpose: a cookie that somebody has seen must not help to guess the token. Once, at first use.
            self._key = (
                secrets.token_bytes(32)
                if self._token is None
                else hashlib.pbkdf2_hmac("sha256", self._token.encode(), b"whereby-trigger inspector", 200_000)
            )
        return self._key

    def is_token(self, given: str) -> bool:
        """Return True if this is the token; takes the same time for every wrong one."""
        if self._token is None:
            return False
        return hmac.compare_digest(_digest(given), _digest(self._token))

    def new_session(self, now: float, *, logged_in: bool) -> LoginSession:
        return LoginSession(secrets.token_urlsafe(18), int(now) + SESSION_SECONDS, logged_in)

    def cookie(self, session: LoginSession) -> str:
        """Return a session as the value of a cookie."""
        body = f"{session.nonce}.{session.ends_at}.{int(session.logged_in)}"
        return f"{body}.{self._mac('session', body)}"

    def session(self, cookie: str, now: float) -> LoginSession | None:
        """Return the session of a cookie, or None if it is none of ours, or is over."""
        body, _, mac = cookie.rpartition(".")
        parts = body.split(".")
        if len(cookie) > 256 or len(parts) != 3 or not cookie.isascii():
            return None
        if not hmac.compare_digest(mac, self._mac("session", body)):
            return None
        session = LoginSession(parts[0], int(parts[1]), parts[2] == "1")
        return session if session.ends_at > now else None

    def forgery_token(self, session: LoginSession) -> str:
        """Return the token that the forms of a session carry."""
        return self._mac("form", session.nonce)

    def is_forgery_token(self, given: str, session: LoginSession) -> bool:
        """Return True if a form came from a page that this session was shown."""
        return given.isascii() and hmac.compare_digest(given, self.forgery_token(session))

    def _mac(self, purpose: str, text: str) -> str:
        digest = hmac.digest(self._signing, f"{purpose}\n{text}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def bearer(head: RequestHead) -> str | None:
    """Return the token of an Authorization header, from a program that keeps no cookies, or None."""
    scheme, _, value = head.first(b"authorization").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def safe_path(path: str) -> str:
    """Return a path of the inspector itself that a login leads on to; "/" for anything else."""
    try:
        decoded = base64.urlsafe_b64decode(path.encode("ascii") + b"==").decode("ascii")
    except (ValueError, binascii.Error):
        return "/"
    fine = decoded.startswith("/") and not decoded.startswith("//") and decoded.isprintable() and "\\" not in decoded
    return decoded if fine else "/"


def packed_path(path: str) -> str:
    """Return a path as `safe_path` takes it."""
    return base64.urlsafe_b64encode(path.encode("ascii", "ignore")).decode().rstrip("=")


class LoginLimit:
    """Bound the tries to log in: of each address, and of all together, so that a botnet gets no further."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self._all: list[float] = []

    def wait(self, address: str, now: float) -> float:
        """Return the seconds that an address has to wait before its next try; 0 if it may try now."""
        own = self._recent(self._wrong.get(address, []), now)
        self._all = self._recent(self._all, now)
        waits = [0.0]
        if len(own) >= WRONG_LOGINS:
            waits.append(own[0] + FORGIVEN_AFTER - now)
        if len(self._all) >= WRONG_LOGINS_IN_ALL:
            waits.append(self._all[0] + FORGIVEN_AFTER - now)
        return max(waits)

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong token."""
        own = self._recent(self._wrong.pop(address, []), now)
        self._wrong[address] = [*own, now][-WRONG_LOGINS:]
        self._all = [*self._recent(self._all, now), now][-WRONG_LOGINS_IN_ALL:]
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    def right(self, address: str) -> None:
        """Forget the wrong tokens of an address that has logged in."""
        self._wrong.pop(address, None)

    def _recent(self, times: list[float], now: float) -> list[float]:
        return [time for time in times if now - FORGIVEN_AFTER < time <= now]
