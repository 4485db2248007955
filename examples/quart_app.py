"""A trigger in a Quart app: webhooks arrive at /whereby, and /visits counts them.

WHEREBY_WEBHOOK_SECRET=… uvicorn quart_app:app
"""

from collections.abc import AsyncGenerator

from quart import Quart
from starlette.routing import Mount, Route, Router

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess, is_human

visits: dict[str, int] = {}

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.on(TRIGGER_EVENT_SUCCESS)
def count(success: TriggerSuccess) -> None:
    visits[success.room_url] = visits.get(success.room_url, 0) + 1


quart = Quart(__name__)


@quart.get("/visits")
async def list_visits() -> dict[str, int]:
    return visits


@quart.while_serving
async def serve_webhooks() -> AsyncGenerator[None, None]:
    async with trigger.lifespan():
        yield


# Quart's routes are functions of its own requests: what stands before them has a route for the trigger.
routes = Router([Route("/whereby", trigger.asgi), Mount("/", quart)])  # type: ignore[arg-type]


async def app(scope: dict[str, object], receive: object, send: object) -> None:
    """Pass the lifespan to Quart, and every request to the routes."""
    await (quart if scope["type"] == "lifespan" else routes)(scope, receive, send)  # type: ignore[arg-type]
