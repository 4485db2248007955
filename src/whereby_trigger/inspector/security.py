"""Who may read the inspector, and who may act: rules on the head of a request, sessions, and tries to log in.

All but the `Gate`, which applies them to requests, is pure but for the random nonces; time is an argument.

Three ways to let somebody in
-----------------------------
LOCAL: programs on this machine only. A page of another site may run in the browser here, and a tunnel or a proxy may
lead here: both show in the headers. TOKEN: all who know the token. HOST: all whom the host app lets through.
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
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from msgspec import Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from whereby_trigger.inspector import Access
from whereby_trigger.loggers import own_logger
from whereby_trigger.receive.intake import LOCAL_HOST, PROXIES, PROXY_PREFIXES, PROXY_SUFFIXES
from whereby_trigger.text import storable_text

logger = own_logger("whereby_trigger.inspector")

LARGEST_FORM: Final = 16 * 1024

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

_HOST: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9._-]{0,252})|\[(?P<ipv6>[0-9a-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE
)

WRONG_LOGINS: Final = 5
"""Wrong tokens in a row that one address may send before it has to wait."""

WRONG_LOGINS_IN_ALL: Final = 60
"""Wrong tokens that all addresses together may send before everybody has to wait."""

FORGIVEN_AFTER: Final = 60.0
"""Seconds after which a wrong token no longer counts."""

ADDRESSES: Final = 1024
"""Addresses that are remembered at most; the oldest is forgotten first, and still counts among all."""


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
    if len(hosts) != 1 or not _is_host(hosts[0]):
        return "the request's Host header is missing or is not a host name"
    if access is Access.LOCAL and (reason := _why_not_local(head, hosts[0])) is not None:
        return reason
    return _why_from_another_site(head, hosts[0])


def _is_host(text: str) -> bool:
    """Return True if a Host header names a host, and a port if any, of which an address can be made."""
    found = _HOST.fullmatch(text)
    if found is None or int(found["port"] or 0) > 65535:
        return False
    try:
        return found["ipv6"] is None or ipaddress.IPv6Address(found["ipv6"]) is not None
    except ValueError:
        return False


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


class Visit:
    """Hold who asks: the session that the answer's cookie keeps, if there is one."""

    def __init__(self, session: LoginSession | None, *, allowed: bool, is_new: bool) -> None:
        self.session, self.allowed, self.is_new = session, allowed, is_new


class Refused(Exception):
    """A request is answered with a status and a sentence."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.headers = status, words, dict(headers or {})


class Gate:
    """Decide who gets in; `token` is what people log in with, None if they do not."""

    def __init__(self, access: Access, token: str | None) -> None:
        self.access = access
        self._keys = Keys(token)
        self._limit = LoginLimit()

    def visit(self, request: Request, head: RequestHead) -> Visit:
        """Return who asks. Raises Refused for a wrong token in a header."""
        now = time.time()
        session = self._keys.session(request.cookies.get(cookie_of(request), ""), now)
        if self.access is Access.TOKEN:
            token = bearer(head)
            if token is not None:
                self.check_token(token, head, now)
                return Visit(session, allowed=True, is_new=False)
            return Visit(session, allowed=session is not None and session.logged_in, is_new=False)
        if session is None:
            return Visit(self._keys.new_session(now, logged_in=False), allowed=True, is_new=True)
        return Visit(session, allowed=True, is_new=False)

    def check_token(self, token: str, head: RequestHead, now: float) -> None:
        """Raise Refused unless this is the token, and its sender has not tried too often."""
        address = head.peer or ""
        if wait := self._limit.wait(address, now):
            after = {"Retry-After": str(int(wait) + 1)}
            raise Refused(429, f"Too many wrong tokens: wait {int(wait) + 1} s, then try again.", after)
        if not self._keys.is_token(token):
            self._limit.wrong(address, now)
            logger.warning("inspector: a wrong token was given")
            raise Refused(401, "That is not the token.")
        self._limit.right(address)

    def keep(self, response: Response, session: LoginSession, request: Request) -> None:
        """Set the session's cookie, which no script can read and no other site can send."""
        response.set_cookie(
            cookie_of(request),
            self._keys.cookie(session),
            max_age=SESSION_SECONDS,
            path=base_of(request) or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def ask_to_log_in(self, request: Request, path: str) -> Response:
        """Lead a person to the login; tell a program that it needs the token."""
        if is_for_programs(path) or request.method not in ("GET", "HEAD"):
            return JSONResponse({"error": "log in first"}, 401, {"WWW-Authenticate": "Bearer"})
        query = request.url.query
        leads_to = packed_path(f"{path}?{query}" if query else path) if path != "/" or query else ""
        after = f"?next={leads_to}" if leads_to else ""
        return RedirectResponse(f"{base_of(request)}/login{after}", 303)

    def log_in(self, response: Response, request: Request) -> None:
        """Begin a session that is logged in, with an answer's cookie."""
        self.keep(response, self._keys.new_session(time.time(), logged_in=True), request)
        logger.info("inspector: somebody logged in")

    def form_token(self, visit: Visit | None) -> str | None:
        """Return the token for the forms of a page, or None without a session."""
        return None if visit is None or visit.session is None else self._keys.forgery_token(visit.session)

    async def checked_form(self, request: Request, visit: Visit) -> dict[str, str]:
        """Return a form's fields; raises Refused if no page that this session was shown sent it."""
        form = await read_form(request)
        session = visit.session
        if session is None or not self._keys.is_forgery_token(form.get("form_token", ""), session):
            raise Refused(403, "This form is out of date: go back, load the page again, and repeat what you did.")
        return form


def is_for_programs(path: str) -> bool:
    """Return True if programs read an address, and no person: they get JSON, and no page to log in on."""
    return path.startswith("/api/") or path in ("/live", "/metrics")


def parameter(request: Request, name: str) -> str:
    """Return a parameter of an address as text that every store takes, or ""."""
    return storable_text(request.query_params.get(name, ""))


async def read_form(request: Request) -> dict[str, str]:
    """Read a form. Raises Refused if it is no form, too large or cut short."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refused(415, "This address takes a form only.")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_FORM:
                raise Refused(413, "The form is too large.")
    except ClientDisconnect:
        raise Refused(400, "The form was cut short.") from None
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20, errors="surrogateescape")
    except ValueError:
        raise Refused(400, "The form cannot be read.") from None
    return {name: storable_text(values[0]) for name, values in fields.items()}


def cookie_of(request: Request) -> str:
    """Return the name of the session's cookie: browsers send a cookie to every port of a host."""
    return COOKIE if request.url.port is None else f"{COOKIE}_{request.url.port}"


def base_of(request: Request) -> str:
    """Return the path that the inspector is mounted at, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path_of(request: Request) -> str:
    """Return the path below the mount."""
    path, base = str(request.scope["path"]), base_of(request)
    below = path[len(base) :] if base and (path == base or path.startswith(f"{base}/")) else path
    return below or "/"
