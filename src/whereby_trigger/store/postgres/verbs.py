"""What the writers are given: which pieces go together, which must not overtake which, and how long each may take."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from whereby_trigger.store.postgres import rooms, webhooks
from whereby_trigger.store.postgres.connection import Connection
from whereby_trigger.store.postgres.webhooks import Owned
from whereby_trigger.store.postgres.writer import KEPT, Verb
from whereby_trigger.store.records import Arrival, RoomRequest

Work = Callable[[Connection], Awaitable[Any]]

LONG_WORK_WITHIN = 90.0
ARRIVALS = ("arrivals", "more arrivals")
"""Two writers: one executes a batch while the other syncs. A room's webhooks use only one, and stay in order."""

WRITERS = {
    **dict.fromkeys(ARRIVALS, 3.0),
    "decisions": 5.0,
    "rooms": 5.0,
    "lease": 3.0,
    "upkeep": 10.0,
    "replays": LONG_WORK_WITHIN,
}
"""The writers by name, each with a connection opened when needed, and the seconds after which an answer counts as lost.

Upkeep is done in parts. While it hangs, webhooks that were pending and those after them are not decided: a silent
connection must not block it for long.
"""

FOR_EACH = (*ARRIVALS, "decisions", "rooms", "lease")
"""The writers in which one piece must not wait long for a row, since other pieces wait behind it."""

ROW_WITHIN = 0.25
"""Seconds that a piece in such a writer waits for a row before it is set aside."""

PATIENCE = 4.5
"""Seconds that a delivery waits for an unavailable database before it is answered 503."""


def _of_arrival(piece: Owned) -> tuple[str, ...]:
    """Return the keys of an arrival; the first is its room, and nothing overtakes it there, if it changes a session."""
    arrival: Arrival = piece.what
    if arrival.room is None:
        return (arrival.id,)
    return (arrival.room, arrival.id) if arrival.change else (arrival.id, arrival.room)


def _of_decision(piece: Owned) -> tuple[str]:
    return (piece.what.id,)


def _of_first(piece: tuple[str, str]) -> tuple[str]:
    return (piece[0],)


def _of_key(piece: RoomRequest | rooms.Move) -> tuple[str]:
    return (piece.key,)


def _arrival_id(piece: Owned) -> str:
    return str(piece.what.id)


def _error_id(piece: tuple[str, str]) -> str:
    return piece[0]


async def _call(connection: Connection, pieces: Sequence[Work], *, again: bool) -> list[Any]:
    return [await piece(connection) for piece in pieces]


_ARRIVALS_LOCKED = partial(webhooks.locked, id_of=_arrival_id)
_ERRORS_LOCKED = partial(webhooks.locked, id_of=_error_id)

CALL = Verb(_call)
# A webhook whose row is there already is a duplicate: it changes no session, and nothing in its room waits for it.
ADD = Verb(webhooks.add, 500, PATIENCE, _of_arrival, _ARRIVALS_LOCKED, _arrival_id)
DECIDE = Verb(webhooks.decide, 500, KEPT, _of_decision, _ARRIVALS_LOCKED)
HOLD = Verb(webhooks.hold, 500, KEPT, _of_decision, _ARRIVALS_LOCKED)
APPEND_ERROR = Verb(webhooks.append_error, 500, KEPT, _of_first, _ERRORS_LOCKED)
BEGIN_ATTEMPT = Verb(webhooks.begin_attempt)
REQUEST = Verb(rooms.request, 1, PATIENCE, _of_key, rooms.locked)
STOP = Verb(rooms.stop, 1, PATIENCE, _of_first, rooms.locked)
MOVE = Verb(rooms.move, 1, KEPT, _of_key, rooms.locked)
