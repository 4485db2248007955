"""A trigger in a FastAPI app: webhooks arrive at /whereby, and /rooms lists the rooms with a session.

WHEREBY_WEBHOOK_SECRET=… uvicorn fastapi_app:app
"""

from fastapi import FastAPI

from whereby_trigger import (
    TRIGGER_EVENT_SUCCESS,
    RoomSessionEnded,
    RoomSessionStarted,
    Trigger,
    TriggerSuccess,
)

rooms: set[str] = set()
requests: list[str] = []

trigger = Trigger(webhook_triggers={"assistant.requested": lambda: True})


@trigger.on("room.session.started")
def open_room(webhook: RoomSessionStarted) -> None:
    rooms.add(webhook.data.room_name)


@trigger.on("room.session.ended")
def close_room(webhook: RoomSessionEnded) -> None:
    rooms.discard(webhook.data.room_name)


@trigger.on(TRIGGER_EVENT_SUCCESS)
async def note_request(success: TriggerSuccess) -> None:
    requests.append(success.room_url)


app = FastAPI(lifespan=trigger.lifespan)
app.add_route("/whereby", trigger.asgi)


@app.get("/rooms")
async def list_rooms() -> dict[str, list[str]]:
    return {"rooms": sorted(rooms), "assistant_requests": requests}
