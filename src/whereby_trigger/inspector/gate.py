"""The door of the inspector: sessions and their cookies, the token, and the forms that a session may send."""

import logging
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from whereby_trigger.inspector.security import (
    COOKIE,
    SESSION_SECONDS,
    Access,
    Keys,
    LoginLimit,
    LoginSession,
    RequestHead,
    bearer,
    packed_path,
)

logger = logging.getLogger("whereby_trigger.inspector")

LARGEST_FORM: Final = 16 * 1024


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
    """Let requests in by an access; `token` is what one logs in with, or None."""

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
        """Have the browser keep a session in a cookie that no script reads and no other site sends."""
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
        if path.startswith("/api/") or path == "/live" or request.method not in ("GET", "HEAD"):
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


async def read_form(request: Request) -> dict[str, str]:
    """Read a form. Raises Refused if it is no form, or too large."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Refused(415, "This address takes a form only.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            raise Refused(413, "The form is too large.")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20, errors="surrogateescape")
    except ValueError:
        raise Refused(400, "The form cannot be read.") from None
    return {name: values[0].encode("utf-8", "replace").decode() for name, values in fields.items()}


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
