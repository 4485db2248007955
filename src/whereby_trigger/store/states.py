"""What can become of a webhook and of a room: every state and every way from one to another."""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Name what became of a stored webhook."""

    PENDING = "pending"
    FIRED = "fired"
    SKIPPED = "skipped"
    NOTIFIED = "notified"
    UNHANDLED = "unhandled"
    FAILED = "failed"
    QUARANTINED = "quarantined"


_DECIDED: Final = frozenset(State) - {State.PENDING}

TRANSITIONS: Final = {
    State.PENDING: _DECIDED,
    **{state: frozenset({State.PENDING}) for state in _DECIDED},
}
"""From each state, the states that may follow: a decision once, and only a replay makes it pending again."""

FIRST_STATES: Final = frozenset({State.PENDING, State.QUARANTINED})
"""The states in which a webhook can be stored."""


class RoomState(StrEnum):
    """Name what became of a room that asked for an assistant."""

    WAITING = "waiting"
    STARTING = "starting"
    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"
    FAILED = "failed"


OVER: Final = frozenset({RoomState.ENDED, RoomState.FAILED})
"""The states of a room that is done with; a room has at most one entry outside these."""

OWNED: Final = frozenset({RoomState.STARTING, RoomState.LIVE, RoomState.ENDING})
"""The states in which a room belongs to a replica; every change from here names it."""

ROOM_TRANSITIONS: Final = {
    RoomState.WAITING: frozenset({RoomState.STARTING, RoomState.ENDED}),
    RoomState.STARTING: frozenset({RoomState.LIVE, RoomState.ENDING, RoomState.WAITING, *OVER}),
    RoomState.LIVE: frozenset({RoomState.ENDING, RoomState.WAITING, *OVER}),
    RoomState.ENDING: frozenset({RoomState.ENDED}),
    RoomState.ENDED: frozenset[RoomState](),
    RoomState.FAILED: frozenset[RoomState](),
}
"""From each state, the states that may follow. Back to waiting: a restart, a takeover, or a hand-over in a drain."""


def before(state: RoomState) -> list[RoomState]:
    """List the states from which a room may come into this one."""
    return [other for other, following in ROOM_TRANSITIONS.items() if state in following]
