"""Rooms in tests: requests with defaults for the values a test does not care about, and rooms in any state."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.support.arrivals import NOW, ROOM
from whereby_trigger.store import (
    Added,
    Arrival,
    Room,
    RoomClaim,
    RoomMove,
    RoomRequest,
    RoomState,
    Store,
    session_change,
)
from whereby_trigger.webhook import decode

WAYS: dict[RoomState, Sequence[RoomState]] = {
    RoomState.STARTING: (),
    RoomState.LIVE: (RoomState.LIVE,),
    RoomState.ENDING: (RoomState.LIVE, RoomState.ENDING),
    RoomState.ENDED: (RoomState.LIVE, RoomState.ENDED),
    RoomState.FAILED: (RoomState.LIVE, RoomState.FAILED),
}
"""The moves from `starting` that bring a room into a state."""


def request(
    key: str = ROOM, *, webhook: str | None = None, session_id: str | None = None, asked_at: float = NOW
) -> RoomRequest:
    return RoomRequest(key, f"https://{key}", webhook, session_id, asked_at)


async def ask(store: Store, key: str = ROOM, **values: Any) -> RoomClaim:
    """Request an assistant in a room, now."""
    return await store.request(request(key, **values))


async def take_one(store: Store) -> Room:
    """Take the one room that waits."""
    (room,) = await store.take(10)
    return room


async def bring_to(store: Store, state: RoomState, **values: Any) -> Room:
    """Request an assistant in a room, and move the room to a state by the usual way."""
    await ask(store, **values)
    if state is not RoomState.WAITING:
        taken = await take_one(store)
        for step in WAYS[state]:
            assert await move(store, taken, step)
    return await newest(store)


async def move(store: Store, room: Room, state: RoomState, reason: str = "as the test wants it") -> bool:
    return await store.move(RoomMove(room.id, state, reason))


async def newest(store: Store) -> Room:
    """Read the room that was requested last."""
    return (await store.rooms())[0]


async def owned(store: Store) -> list[Room]:
    """Read the rooms of this replica."""
    return [room for room in await store.rooms() if room.owner == store.replica]


async def states(store: Store) -> list[RoomState]:
    """Read the states of all rooms, in the order of their requests."""
    return [room.state for room in reversed(await store.rooms())]


async def session(store: Store, id: str, **values: Any) -> Added:
    """Store a webhook that says that a session of a room has begun, or ended."""
    return await store.add(session_arrival(id, **values))


def session_arrival(
    id: str,
    *,
    started: bool = False,
    session_id: str | None = None,
    created_at: float | None = NOW,
    key: str = ROOM,
    received_at: float = NOW,
) -> Arrival:
    type = "room.session.started" if started else "room.session.ended"
    subdomain, _, name = key.partition(".whereby.com/")
    created = None if created_at is None else datetime.fromtimestamp(created_at, UTC).isoformat()
    data = {"roomName": f"/{name}", "subdomain": subdomain, "roomSessionId": session_id}
    body = json.dumps({"id": id, "type": type, "createdAt": created, "data": data}).encode()
    return Arrival(id, type, key, body, received_at, change=session_change(decode(body), key, received_at))
