"""The trigger as an ASGI app: mounted in a host app, or served as it is by any ASGI server."""

import logging
from collections.abc import Callable
from typing import Any

from whereby_trigger.receive.edge import Edge, Receive, Scope, Send

logger = logging.getLogger("whereby_trigger")

LIFESPAN_MISSING = """\
a request was answered 503: the trigger is mounted but not running. Add its lifespan to the host app:

    app = FastAPI(lifespan=trigger.lifespan)    # or Starlette(lifespan=trigger.lifespan)

or, where the app has a lifespan already, put `async with trigger.lifespan(app):` around its `yield`."""


class Mounted:
    """Answer ASGI requests with the running edge; with 503, and a hint in the log, while there is none."""

    def __init__(self, lifespan: Callable[[Any], Any], edge: Callable[[], Edge | None]) -> None:
        self._lifespan = lifespan
        self._edge = edge
        self._hinted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._answer(scope, receive, send)

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Imported here, since only a server that runs `trigger.asgi` as it is needs it.
        from starlette.routing import Router

        await Router(lifespan=self._lifespan)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        edge = self._edge()
        if edge is not None:
            await edge(scope, receive, send)
            return
        if not self._hinted:
            self._hinted = True
            logger.error("%s", LIFESPAN_MISSING)
        headers = [(b"content-length", b"0"), (b"retry-after", b"5")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
