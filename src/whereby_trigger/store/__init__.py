"""Where webhooks and decisions live: the protocol that every store speaks, and its values."""

from whereby_trigger.store.protocol import Store
from whereby_trigger.store.records import Added, Arrival, Decision, Pending, Query, Record
from whereby_trigger.store.rooms import (
    Heard,
    Room,
    RoomClaim,
    RoomMove,
    RoomRequest,
    RoomStore,
    SessionChange,
    every_room,
    session_change,
    session_of,
)
from whereby_trigger.store.states import FIRST_STATES, ROOM_TRANSITIONS, TRANSITIONS, RoomState, State

__all__ = [
    "FIRST_STATES",
    "ROOM_TRANSITIONS",
    "TRANSITIONS",
    "Added",
    "Arrival",
    "Decision",
    "Heard",
    "Pending",
    "Query",
    "Record",
    "Room",
    "RoomClaim",
    "RoomMove",
    "RoomRequest",
    "RoomState",
    "RoomStore",
    "SessionChange",
    "State",
    "Store",
    "every_room",
    "session_change",
    "session_of",
]
