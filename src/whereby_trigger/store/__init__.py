"""Keep webhooks, decisions and rooms: the protocol that every store implements, and its values."""

from whereby_trigger.store.bounds import UNBOUNDED, Bounds
from whereby_trigger.store.presence import UNKNOWN, Count, Presence, merge
from whereby_trigger.store.protocol import RoomStore, Store, every_room
from whereby_trigger.store.records import (
    Added,
    Arrival,
    Decision,
    Holding,
    Pending,
    Query,
    Record,
    Room,
    RoomClaim,
    RoomMove,
    RoomRequest,
    SessionChange,
    WebhooksAfter,
    count_in,
    session_change,
    session_of,
)
from whereby_trigger.store.room_rules import ROOM_TRANSITIONS
from whereby_trigger.store.states import FIRST_STATES, TRANSITIONS, UNDECIDED, RoomState, State
from whereby_trigger.store.unread import Unread

__all__ = [
    "FIRST_STATES",
    "ROOM_TRANSITIONS",
    "TRANSITIONS",
    "UNBOUNDED",
    "UNDECIDED",
    "UNKNOWN",
    "Added",
    "Arrival",
    "Bounds",
    "Count",
    "Decision",
    "Holding",
    "Pending",
    "Presence",
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
    "Unread",
    "WebhooksAfter",
    "count_in",
    "every_room",
    "merge",
    "session_change",
    "session_of",
]
