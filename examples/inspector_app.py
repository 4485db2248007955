"""The inspector in a FastAPI app at /admin/inspector, protected by ADMIN_PASSWORD; webhooks arrive at /whereby.

WHEREBY_WEBHOOK_SECRET=… ADMIN_PASSWORD=… uvicorn inspector_app:app
"""

import base64
import os
import secrets

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from whereby_trigger import RoomClientJoined, Trigger, is_human

trigger = Trigger()


@trigger.when("room.client.joined")
def people(webhook: RoomClientJoined) -> bool:
    return is_human(webhook)


class AdminsOnly:
    """Allow a request that has the admin's password. Put your own login here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        expected = base64.b64encode(f"admin:{os.environ['ADMIN_PASSWORD']}".encode()).decode()
        given = HTTPConnection(scope).headers.get("authorization", "")
        if secrets.compare_digest(given.encode(), f"Basic {expected}".encode()):
            await self._app(scope, receive, send)
        else:
            refusal = Response("log in first", 401, {"WWW-Authenticate": 'Basic realm="admin"'})
            await refusal(scope, receive, send)


app = FastAPI(lifespan=trigger.lifespan)
app.add_route("/whereby", trigger.asgi)
app.mount("/admin/inspector", AdminsOnly(trigger.inspector.behind_login()))
