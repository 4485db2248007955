"""The pages of the inspector and their addresses."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from whereby_trigger.config import Settings
from whereby_trigger.errors import ConfigError, StoreUnavailable, UsageError
from whereby_trigger.inspector import Access, InspectedProgram, reads, rendering
from whereby_trigger.inspector.actions import DONE, Actions
from whereby_trigger.inspector.live import Batch, Folded, LiveFeed, SharedStore, fold
from whereby_trigger.inspector.reads import Filters, filters_of
from whereby_trigger.inspector.rendering import STATIC, Pages
from whereby_trigger.inspector.security import (
    HEADERS,
    Gate,
    Refused,
    RequestHead,
    Visit,
    base_of,
    cookie_of,
    is_for_programs,
    parameter,
    path_of,
    read_form,
    safe_path,
    why_refused,
)
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import MINUTE, Record, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.text import printable, utc

logger = own_logger("whereby_trigger.inspector")

NOTHING_NEW: Final = b": nothing new\n\n"

REFUSALS_OF: Final = 24 * 3600.0

Handler = Callable[[Request, "Visit"], Awaitable[Response]]


def _store_of(settings: Settings) -> Store:
    return store_for(settings.store, file=settings.store_file)


class Site:
    """Answer every request for the inspector of one program."""

    def __init__(self, program: InspectedProgram, access: Access) -> None:
        self._program = program
        self._settings = program.settings()
        self._location = store_for(self._settings.store).location
        self._gate = Gate(access, self._settings.inspector_token)
        self._pages = Pages()
        self._actions = Actions(program, self._settings)
        self._shared = SharedStore(lambda: _store_of(program.settings()))
        self._feed = LiveFeed(self._shared)
        self._reads: dict[str, Handler] = {
            "/": self._live,
            "/live": self._stream,
            "/rooms": self._rooms,
            "/room": self._room,
            "/webhook": self._webhook,
            "/refusals": self._refusals,
            "/health": self._health,
            "/confirm": self._confirm,
            "/api/webhooks": self._api_webhooks,
            "/api/webhook": self._api_webhook,
            "/api/rooms": self._api_rooms,
            "/api/room": self._api_room,
            "/api/refusals": self._api_refusals,
            "/api/health": self._api_health,
            "/api/openapi.json": self._api_described,
            "/metrics": self._metrics,
        }
        self._acts: dict[str, Handler] = {
            "/webhook/replay": self._replay,
            "/webhook/ask": self._ask,
            "/webhook/reveal": self._reveal,
            "/room/start": self._start,
            "/room/stop": self._stop,
            "/logout": self._log_out,
        }

    async def close(self) -> None:
        """Close the store that pages have read."""
        await self._shared.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        head = RequestHead(
            request.method,
            # Not of request.url: before the Host header is checked, nothing may be made of it.
            request.scope.get("scheme", "http"),
            tuple((name.lower(), value) for name, value in request.scope["headers"]),
            request.client.host if request.client else None,
        )
        if (reason := why_refused(head, self._gate.access)) is not None:
            return PlainTextResponse(f"{reason}\n", 403)
        path = path_of(request)
        try:
            if path.startswith("/static/"):
                return _static(path.removeprefix("/static/"), request.method)
            if path == "/login":
                return await self._log_in(request, head)
            visit = self._gate.visit(request, head)
            if not visit.allowed:
                return self._gate.ask_to_log_in(request, path)
            response = await self._routed(request, path, visit)
            if visit.is_new and visit.session is not None:
                self._gate.keep(response, visit.session, request)
            return response
        except Refused as refused:
            return self._refuse(request, path, refused)
        except StoreUnavailable as error:
            return self._refuse(request, path, Refused(503, f"The store is unavailable now. {error}"))
        except UsageError as error:
            # Of the store, or of a setting that is read again: its file may be gone.
            return self._refuse(request, path, Refused(503, str(error)))

    async def _routed(self, request: Request, path: str, visit: Visit) -> Response:
        if path in self._reads:
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, "This address is only read.", {"Allow": "GET, HEAD"})
            return await self._reads[path](request, visit)
        if path in self._acts:
            if request.method != "POST":
                raise Refused(405, "This address takes a form only.", {"Allow": "POST"})
            return await self._acts[path](request, visit)
        raise Refused(404, "There is no such page.")

    def _refuse(self, request: Request, path: str, refused: Refused) -> Response:
        if is_for_programs(path):
            return _json({"error": printable(refused.words)}, refused.status, refused.headers)
        page = self._pages.render("refused.html", self._common(request, None) | {"words": printable(refused.words)})
        return Response(page, refused.status, refused.headers, "text/html")

    async def _log_in(self, request: Request, head: RequestHead) -> Response:
        if self._gate.access is not Access.TOKEN:
            return RedirectResponse(f"{base_of(request)}/", 303)
        leads_to = request.query_params.get("next", "")
        wrong, status, headers = "", 200, {}
        if request.method == "POST":
            try:
                form = await read_form(request)
                self._gate.check_token(form.get("token", ""), head, time.time())
            except Refused as refused:
                wrong, status, headers = refused.words, refused.status, refused.headers
            else:
                response = RedirectResponse(f"{base_of(request)}{safe_path(leads_to)}", 303)
                self._gate.log_in(response, request)
                return response
        elif request.method not in ("GET", "HEAD"):
            raise Refused(405, "This address takes a form only.", {"Allow": "GET, POST"})
        page = self._pages.render("login.html", self._common(request, None) | {"wrong": wrong, "next": leads_to})
        return Response(page, status, headers, "text/html")

    async def _log_out(self, request: Request, visit: Visit) -> Response:
        await self._gate.checked_form(request, visit)
        response = RedirectResponse(f"{base_of(request)}/login", 303)
        response.delete_cookie(cookie_of(request), path=base_of(request) or "/", httponly=True, samesite="strict")
        return response

    def _check_actions(self) -> None:
        if not self._settings.inspector_actions:
            raise Refused(403, "This inspector only shows: inspector_actions is off.")

    def _common(self, request: Request, visit: Visit | None) -> dict[str, Any]:
        settings = self._settings
        return {
            "base": base_of(request),
            "path": path_of(request),
            "now": time.time(),
            "form_token": self._gate.form_token(visit),
            "logged_in": self._gate.access is Access.TOKEN and visit is not None,
            "actions": settings.inspector_actions,
            "reveals": settings.inspector_reveal,
            "store": self._location,
            "done": DONE.get(request.query_params.get("done", "")),
            "signed": settings.signed,
        }

    def _page(self, request: Request, visit: Visit, name: str, values: dict[str, Any]) -> Response:
        return Response(self._pages.render(name, self._common(request, visit) | values), media_type="text/html")

    async def _live(self, request: Request, visit: Visit) -> Response:
        filters = filters_of(request.query_params, time.time())
        async with self._shared.use() as store:
            page = await reads.live_page(store, filters, time.time())
        typed = {"room": filters.room, "type": filters.type, "state": filters.state}
        follow = urlencode({name: value for name, value in typed.items() if value})
        values = {
            "page": page,
            "filters": filters,
            "follow": "" if filters.until or filters.wrong else f"{base_of(request)}/live?{follow}",
            "webhooks_port": self._settings.port,
            "webhooks_path": self._settings.path,
        }
        return self._page(request, visit, "live.html", values)

    async def _stream(self, request: Request, visit: Visit) -> Response:
        filters = filters_of(request.query_params, time.time())
        base = base_of(request)
        if filters.wrong:
            raise Refused(400, "; ".join(filters.wrong))
        if self._feed.full:
            raise Refused(503, "Too many pages are open.", {"Retry-After": "30"})
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")

        async def events() -> AsyncIterator[bytes]:
            if self._feed.full:
                # Many came at once, as after a restart, and the last of them while this answer began.
                yield b"retry: 30000\n\n"
                return
            with self._feed.follow() as follower:
                try:
                    yield b"retry: 2000\n\n"
                    # What came while the page was loading; the page knows its rows by their ids. The feed has looked
                    # before: it tells of all that is stored after this read.
                    await follower.begun()
                    async with self._shared.use() as store:
                        page = await reads.live_page(store, filters, time.time())
                    yield self._event(Batch(page.records[:30][::-1]), filters, base, first=True)
                    while True:
                        yield self._event(await follower.next(), filters, base)
                except (EOFError, UsageError):
                    # The browser connects again, and gets what it has missed.
                    return

        return StreamingResponse(events(), media_type="text/event-stream")

    def _event(self, batch: Batch, filters: Filters, base: str, *, first: bool = False) -> bytes:
        """Return a batch as an event for pages with the same filters, which is rendered once for all of them."""
        key = (base, filters.room, filters.type, filters.state)
        if key not in batch.events:
            matching = [record for record in batch.records if filters.matches(record)]
            rows = [self._row(one, base) for one in (matching if first else fold(matching))]
            # A page may show what was in that state a moment ago.
            gone = [one.id for one in batch.records if not filters.matches(one)] if filters.state else []
            told = {"rows": rows, "gone": gone, "count": len(matching), "first": first}
            batch.events[key] = b"data: %b\n\n" % rendering.encoded(told) if rows or gone else NOTHING_NEW
        return batch.events[key]

    def _row(self, one: Record | Folded, base: str) -> dict[str, Any]:
        if isinstance(one, Folded):
            return {"ids": [record.id for record in one.records], "html": self._pages.folded_row(one, base)}
        return {"ids": [one.id], "html": self._pages.row(one, base)}

    async def _rooms(self, request: Request, visit: Visit) -> Response:
        async with self._shared.use() as store:
            page = await reads.rooms_now(store)
        return self._page(request, visit, "rooms.html", {"rooms": page.rooms, "more": page.more})

    async def _room(self, request: Request, visit: Visit) -> Response:
        now = time.time()
        page = await self._room_page(request, now)
        values = {"page": page, "picture": self._pages.picture(page), "zooms": _zooms(page, now)}
        return self._page(request, visit, "room.html", values)

    async def _room_page(self, request: Request, now: float) -> reads.RoomPage:
        filters = filters_of({name: parameter(request, name) for name in ("since", "until")}, now)
        if filters.wrong:
            raise Refused(400, "; ".join(filters.wrong))
        named = parameter(request, "key")
        async with self._shared.use() as store:
            try:
                key = await reads.room_key(store, named)
            except ConfigError as error:
                raise Refused(400, str(error)) from None
            page = await reads.room_page(store, key, filters.selected.since, filters.selected.until, now)
        if not page.known:
            raise Refused(404, f"Nothing is stored about a room {printable(named[:200])!r}.")
        return page

    async def _webhook(self, request: Request, visit: Visit) -> Response:
        return await self._webhook_page(request, visit, parameter(request, "id"))

    async def _webhook_page(self, request: Request, visit: Visit, id: str, **more: Any) -> Response:
        page = await self._stored_webhook(id)
        askable = self._actions.askable(page.record)
        values = {"page": page, "record": page.record, "askable": askable, "revealed": False, "verdict": None}
        return self._page(request, visit, "webhook.html", values | more)

    async def _stored_webhook(self, id: str) -> reads.WebhookPage:
        async with self._shared.use() as store:
            page = await reads.webhook_page(store, id)
        if page is None:
            raise Refused(404, f"No webhook {printable(id[:200])!r} is stored; retention may have passed.")
        return page

    async def _refusals(self, request: Request, visit: Visit) -> Response:
        until = time.time() + MINUTE
        async with self._shared.use() as store:
            counts = await store.refusals(until - REFUSALS_OF, until)
        hours = reads.by_hour(counts, until)
        values = {"rows": reads.by_reason(counts), "hours": hours, "total": sum(hours)}
        return self._page(request, visit, "refusals.html", values)

    async def _health(self, request: Request, visit: Visit) -> Response:
        async with self._shared.use() as store:
            page = await reads.health_page(store)
        values = {"page": page, "here": await self._here(), "settings": self._settings}
        return self._page(request, visit, "health.html", values)

    async def _here(self) -> dict[str, Any] | None:
        """Return what is known of the replica in this process, or None without one."""
        replica = self._program.replica()
        if replica is None:
            return None
        return {
            "id": replica.store.replica,
            "ready": await replica.readiness.is_ready(),
            "draining": replica.readiness.draining,
            "lease_held": replica.store.lease.held,
            "slots": self._settings.max_rooms,
            "slots_used": replica.readings.slots_used,
            "spilled": replica.readiness.spilled,
        }

    async def _confirm(self, request: Request, visit: Visit) -> Response:
        self._check_actions()
        action = request.query_params.get("action", "")
        if action not in ("replay", "ask", "start", "stop"):
            raise Refused(404, "There is no such action.")
        on = parameter(request, "id" if action in ("replay", "ask") else "key")
        return self._page(request, visit, "confirm.html", {"action": action, "on": on})

    async def _replay(self, request: Request, visit: Visit) -> Response:
        form = await self._gate.checked_form(request, visit)
        self._check_actions()
        id = _named(form, "id")
        return _back(request, "webhook", {"id": id, "done": await self._actions.replay(id)})

    async def _ask(self, request: Request, visit: Visit) -> Response:
        form = await self._gate.checked_form(request, visit)
        self._check_actions()
        id = _named(form, "id")
        return await self._webhook_page(request, visit, id, verdict=await self._actions.ask(id))

    async def _reveal(self, request: Request, visit: Visit) -> Response:
        form = await self._gate.checked_form(request, visit)
        if not self._settings.inspector_reveal:
            raise Refused(403, "This inspector reveals nothing: inspector_reveal is off.")
        id = _named(form, "id")
        response = await self._webhook_page(request, visit, id, revealed=True)
        logger.info("inspector: webhook %s is revealed", printable(id))
        return response

    async def _start(self, request: Request, visit: Visit) -> Response:
        form = await self._gate.checked_form(request, visit)
        self._check_actions()
        key = _named(form, "key")
        return _back(request, "room", {"key": key, "done": await self._actions.start(key)})

    async def _stop(self, request: Request, visit: Visit) -> Response:
        form = await self._gate.checked_form(request, visit)
        self._check_actions()
        key = _named(form, "key")
        return _back(request, "room", {"key": key, "done": await self._actions.stop(key)})

    async def _api_webhooks(self, request: Request, visit: Visit) -> Response:
        filters = filters_of(request.query_params, time.time())
        if filters.wrong:
            raise Refused(400, "; ".join(filters.wrong))
        async with self._shared.use() as store:
            return _json(rendering.webhooks_as_object(await reads.live_page(store, filters, time.time())))

    async def _api_webhook(self, request: Request, visit: Visit) -> Response:
        return _json(rendering.webhook_as_object(await self._stored_webhook(parameter(request, "id"))))

    async def _api_rooms(self, request: Request, visit: Visit) -> Response:
        async with self._shared.use() as store:
            return _json(rendering.rooms_as_object(await reads.rooms_now(store)))

    async def _api_room(self, request: Request, visit: Visit) -> Response:
        return _json(rendering.room_as_object(await self._room_page(request, time.time())))

    async def _api_refusals(self, request: Request, visit: Visit) -> Response:
        until = time.time() + MINUTE
        async with self._shared.use() as store:
            counts = await store.refusals(until - REFUSALS_OF, until)
        return _json(rendering.refusals_as_object(counts, until - REFUSALS_OF, until))

    async def _api_health(self, request: Request, visit: Visit) -> Response:
        async with self._shared.use() as store:
            page = await reads.health_page(store)
        return _json(rendering.health_as_object(page, await self._here()))

    async def _api_described(self, request: Request, visit: Visit) -> Response:
        return Response(rendering.OPENAPI, media_type="application/json")

    async def _metrics(self, request: Request, visit: Visit) -> Response:
        content_type, text = await self._program.metrics.exposed(request.headers.get("accept", ""))
        return Response(text, media_type=content_type)


def _zooms(page: reads.RoomPage, now: float) -> list[tuple[str, str]]:
    """Return what leads to other times of a room: words, and the query of the address."""
    since, until = page.since, page.until
    span = until - since

    def query(start: float, end: float) -> str:
        return urlencode({"key": page.key, "since": utc(max(0.0, start)), "until": utc(max(1.0, end))})

    zooms = [
        ("Earlier", query(since - span, since)),
        ("Later", query(until, until + span)),
        ("Zoom in", query(since + span / 4, until - span / 4)),
        ("Zoom out", query(since - span / 2, until + span / 2)),
        ("Last 24 h", urlencode({"key": page.key, "since": "24h"})),
        ("Newest meeting", urlencode({"key": page.key})),
    ]
    return [(words, to) for words, to in zooms if words != "Later" or until < now - 1]


def _static(name: str, method: str) -> Response:
    if name not in STATIC:
        raise Refused(404, "There is no such file.")
    if method not in ("GET", "HEAD"):
        raise Refused(405, "This address is only read.", {"Allow": "GET, HEAD"})
    content, type = STATIC[name]
    # Its address changes with its content.
    return Response(content, media_type=type, headers={"Cache-Control": "private, max-age=86400"})


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(rendering.encoded(value), status, headers, "application/json")


def _named(form: Mapping[str, str], field: str) -> str:
    """Return the id or key that a form names, "" if none.

    A page holds it percent-encoded: what is stored may have control characters, which HTML cannot hold.
    """
    return unquote(form.get(field, ""))


def _back(request: Request, page: str, to: dict[str, str]) -> Response:
    """Lead from an action to the page that tells what was done."""
    return RedirectResponse(f"{base_of(request)}/{page}?{urlencode(to)}", 303)
