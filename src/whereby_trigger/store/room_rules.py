"""What happens to a room's entry: one table, which both stores read at run time.

Theory
------
A room has at most one open entry: one that is waiting, starting, live or ending. A store locks the room, reads its open
entry, asks this module what an event does to it, and writes the answer. `RULES` says, by event and by the entry's
state, which state comes next and what else is written; an event that is not listed for a state changes nothing.

Three rules depend on more than the state. They are in code, below the table:

1. An entry whose end was asked for counts as ending when a request comes: the request is for the next assistant.
2. An entry whose end was asked for never waits again: it has ended.
3. When an entry is over, its successor starts to wait, unless the successor is too old.

Only an entry that belongs to a replica can be asked to end or have a successor; a waiting entry has neither.

PostgreSQL takes rooms and ends old ones many at a time, in one statement each, and so does SQLite;
tests/store/test_room_rules.py holds every event against the table on both stores.
"""

import json
from collections.abc import Iterable, Mapping
from enum import Enum, StrEnum, auto
from math import inf
from typing import Final, NamedTuple

from msgspec import structs

from whereby_trigger.store.records import RoomClaim, RoomRequest, SessionChange, session_change
from whereby_trigger.store.states import OVER, RoomState
from whereby_trigger.webhook import decode


class RoomEvent(StrEnum):
    """Name what can happen to a room's entry."""

    REQUESTED = "requested"
    """A webhook fired, or somebody asked by hand."""

    TAKEN = "taken"
    """A replica with a free slot takes the room."""

    WENT_LIVE = "went live"
    BEGAN_TO_END = "began to end"
    ENDED = "ended"
    FAILED = "failed"
    WAITS_AGAIN = "waits again"
    """The owner moved the room: this one restarts it later, or hands it over in a drain."""

    STOPPED = "stopped by hand"
    SESSION_OVER = "session over"
    """The session that the assistant was asked for has ended, or another one has started."""

    SUCCESSOR_OVER = "successor's session over"
    OWNER_GONE = "owner gone"
    """The owner died, lost its lease or stopped."""

    OWNER_LONG_GONE = "owner long gone"
    """The owner died longer than `max_age` ago."""

    TOO_OLD = "too old"
    """The room has waited for longer than `max_age`."""


class Effect(Enum):
    """Name what is written beside the state."""

    ASK_TO_STOP = auto()
    """Note why the assistant is to end; the first reason stays."""

    KEEP_SUCCESSOR = auto()
    """Keep the request as the entry's successor, in place of an older one."""

    DROP_SUCCESSOR = auto()


class Step(NamedTuple):
    """Hold what an event does to an entry in one state: the state that comes next, and what else is written."""

    state: RoomState | None
    effects: tuple[Effect, ...] = ()


WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
ASK_TO_STOP, KEEP_SUCCESSOR, DROP_SUCCESSOR = Effect
STAYS = None
"""The entry stays in its state."""

RULES: Final[Mapping[RoomEvent, Mapping[RoomState | None, Step]]] = {
    RoomEvent.REQUESTED: {
        None: Step(WAITING),
        ENDING: Step(STAYS, (KEEP_SUCCESSOR,)),
    },
    RoomEvent.TAKEN: {
        WAITING: Step(STARTING),
    },
    RoomEvent.WENT_LIVE: {
        STARTING: Step(LIVE),
    },
    RoomEvent.BEGAN_TO_END: {
        STARTING: Step(ENDING),
        LIVE: Step(ENDING),
    },
    RoomEvent.ENDED: {
        STARTING: Step(ENDED),
        LIVE: Step(ENDED),
        ENDING: Step(ENDED),
    },
    RoomEvent.FAILED: {
        STARTING: Step(FAILED),
        LIVE: Step(FAILED),
    },
    RoomEvent.WAITS_AGAIN: {
        STARTING: Step(WAITING),
        LIVE: Step(WAITING),
    },
    RoomEvent.STOPPED: {
        WAITING: Step(ENDED),
        STARTING: Step(STAYS, (ASK_TO_STOP, DROP_SUCCESSOR)),
        LIVE: Step(STAYS, (ASK_TO_STOP, DROP_SUCCESSOR)),
        ENDING: Step(STAYS, (ASK_TO_STOP, DROP_SUCCESSOR)),
    },
    RoomEvent.SESSION_OVER: {
        WAITING: Step(ENDED),
        STARTING: Step(STAYS, (ASK_TO_STOP,)),
        LIVE: Step(STAYS, (ASK_TO_STOP,)),
        ENDING: Step(STAYS, (ASK_TO_STOP,)),
    },
    RoomEvent.SUCCESSOR_OVER: {
        STARTING: Step(STAYS, (DROP_SUCCESSOR,)),
        LIVE: Step(STAYS, (DROP_SUCCESSOR,)),
        ENDING: Step(STAYS, (DROP_SUCCESSOR,)),
    },
    RoomEvent.OWNER_GONE: {
        STARTING: Step(WAITING),
        LIVE: Step(WAITING),
        ENDING: Step(ENDED),
    },
    RoomEvent.OWNER_LONG_GONE: {
        STARTING: Step(ENDED),
        LIVE: Step(ENDED),
        ENDING: Step(ENDED),
    },
    RoomEvent.TOO_OLD: {
        WAITING: Step(ENDED),
    },
}
"""By event and by the state of the room's open entry (None: it has none), what comes next."""

MOVES: Final[Mapping[RoomState, RoomEvent]] = {
    LIVE: RoomEvent.WENT_LIVE,
    ENDING: RoomEvent.BEGAN_TO_END,
    ENDED: RoomEvent.ENDED,
    FAILED: RoomEvent.FAILED,
    WAITING: RoomEvent.WAITS_AGAIN,
}
"""By the state that an owner moves its room to, the event that this is."""

ROOM_TRANSITIONS: Final[Mapping[RoomState, frozenset[RoomState]]] = {
    before: frozenset(
        after for steps in RULES.values() if before in steps and (after := steps[before].state) is not None
    )
    for before in RoomState
}
"""From each state, the states that may follow. Back to waiting: a restart, a takeover, or a hand-over in a drain."""


class OpenRoom(NamedTuple):
    """Hold what the rules read of a room's open entry."""

    id: int
    state: RoomState
    owner: str | None
    stop: str | None
    session_id: str | None
    asked_at: float
    successor: str | None


class Change(NamedTuple):
    """Hold what a store writes: the entry as it is now, why its state changed, and the request that waits next."""

    entry: OpenRoom
    reason: str | None = None
    opens: RoomRequest | None = None


def change(entry: OpenRoom, event: RoomEvent, reason: str, *, asked: str | None = None, oldest: float = -inf) -> Change:
    """Return what an event does to an entry, for a reason; the same entry if it does nothing.

    `asked` is the request to keep as its successor. A successor that was asked for before `oldest` does not start.
    """
    step = RULES[event].get(_state_met(entry, event))
    if step is None:
        return Change(entry)
    state, stop, successor = step.state or entry.state, entry.stop, entry.successor
    if Effect.KEEP_SUCCESSOR in step.effects:
        successor = asked
    if Effect.DROP_SUCCESSOR in step.effects:
        successor = None
    if Effect.ASK_TO_STOP in step.effects and stop is None:
        stop = reason
    if step.state is WAITING and stop is not None:
        state, reason = ENDED, stop
    opens = None
    if state in OVER and successor is not None:
        opens, successor = unpack(successor), None
        opens = opens if opens.asked_at >= oldest else None
    after = entry._replace(state=state, stop=stop, successor=successor)
    return Change(after, reason if state is not entry.state else None, opens)


def _state_met(entry: OpenRoom, event: RoomEvent) -> RoomState:
    # Its assistant may not have been told yet, but what comes now is for the next one.
    return ENDING if event is RoomEvent.REQUESTED and entry.stop is not None else entry.state


def requested(entry: OpenRoom | None, request: RoomRequest) -> tuple[RoomClaim, Change | None]:
    """Return what a request is told, and what it changes, if anything; without an open entry, it opens one.

    What it changes holds only if the request's session is not over: ask `is_over` before writing.
    """
    if entry is None:
        return RoomClaim(True, WAITING, None), None
    claim = RoomClaim(False, _state_met(entry, RoomEvent.REQUESTED), entry.owner)
    changed = change(entry, RoomEvent.REQUESTED, "", asked=pack(request))
    return claim, None if changed.entry == entry else changed


def moved(entry: OpenRoom, state: RoomState, reason: str) -> Change | None:
    """Return what a move by the owner does to its room, or None if the table does not allow it."""
    event = MOVES.get(state)
    return None if event is None or entry.state not in RULES[event] else change(entry, event, reason)


def session_changed(entry: OpenRoom, said: SessionChange) -> Change:
    """Return what the start or the end of a session does to the room's entry."""
    successor = None if entry.successor is None else unpack(entry.successor)
    if successor is not None and said.ends(successor.session_id, successor.asked_at):
        entry = change(entry, RoomEvent.SUCCESSOR_OVER, "").entry
    if not said.ends(entry.session_id, entry.asked_at):
        return Change(entry)
    reason = "another session has started" if said.started else "the session has ended"
    return change(entry, RoomEvent.SESSION_OVER, reason)


def released(entry: OpenRoom, reason: str, too_old: float | None) -> Change:
    """Return what becomes of the room of a replica that is gone; `too_old` is as for the stores' `release`."""
    if too_old is None:
        return change(entry, RoomEvent.OWNER_GONE, reason)
    return change(entry, RoomEvent.OWNER_LONG_GONE, reason, oldest=too_old)


def is_over(request: RoomRequest, bodies: Iterable[bytes]) -> bool:
    """Return True if the session of the webhook that fired is over, by what the room's other webhooks say."""
    changes = (session_change(decode(body), request.key) for body in bodies)
    return any(said is not None and said.ends(request.session_id, request.asked_at) for said in changes)


def pack(request: RoomRequest) -> str:
    """Return the request as it is stored with the entry whose successor it is."""
    return json.dumps(structs.asdict(request))


def unpack(successor: str) -> RoomRequest:
    """Return a request that was stored as a successor."""
    return RoomRequest(**json.loads(successor))
