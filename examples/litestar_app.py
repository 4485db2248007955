"""A trigger in a Litestar app: webhooks arrive at /whereby, and /visits counts them.

WHEREBY_WEBHOOK_SECRET=… uvicorn litestar_app:app
"""

from litestar import Litestar, asgi, get

from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess, is_human

visits: dict[str, int] = {}

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.on(TRIGGER_EVENT_SUCCESS)
def count(success: TriggerSuccess) -> None:
    visits[success.room_url] = visits.get(success.room_url, 0) + 1


@get("/visits")
async def list_visits() -> dict[str, int]:
    return visits


app = Litestar(
    [list_visits, asgi("/whereby", is_mount=True, copy_scope=True)(trigger.asgi)], lifespan=[trigger.lifespan]
)
