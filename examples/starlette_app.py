"""A trigger in a Starlette app that has its own lifespan: the trigger's lifespan goes inside, around the yield.

Listeners can use what the app opens, because the trigger drains before the app closes it.

    WHEREBY_WEBHOOK_SECRET=… uvicorn starlette_app:app
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess, is_human

visits: sqlite3.Connection
trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.on(TRIGGER_EVENT_SUCCESS)
async def note_visit(success: TriggerSuccess) -> None:
    visits.execute("INSERT INTO visits VALUES (?, ?)", (success.room_url, success.attempt))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    global visits
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as visits:
        visits.execute("CREATE TABLE visits (room_url TEXT, attempt INTEGER)")
        async with trigger.lifespan(app):
            yield


async def count_visits(request: Request) -> JSONResponse:
    rows = visits.execute("SELECT room_url, count(*) FROM visits GROUP BY room_url")
    return JSONResponse(dict(rows.fetchall()))


app = Starlette(lifespan=lifespan, routes=[Route("/whereby", trigger.asgi), Route("/visits", count_visits)])
