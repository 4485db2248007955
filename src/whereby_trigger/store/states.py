"""The states of a webhook and of a room. How a room gets from one to another is in `room_rules`."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Name the state of a stored webhook."""

    PENDING = "pending"
    HELD = "held"
    FIRED = "fired"
    SKIPPED = "skipped"
    NOTIFIED = "notified"
    UNHANDLED = "unhandled"
    FAILED = "failed"
    QUARANTINED = "quarantined"


UNDECIDED: Final = frozenset({State.PENDING, State.HELD})
"""The states of a webhook that has no decision yet."""

_DECIDED: Final = frozenset(State) - UNDECIDED

TRANSITIONS: Final = {
    State.PENDING: _DECIDED | {State.HELD},
    State.HELD: frozenset({State.PENDING}),
    **{state: frozenset({State.PENDING}) for state in _DECIDED},
}
"""From each state, the states that may follow.

A decision is made once, and on a pending webhook only: a held one becomes pending whenever its predicate is asked
again. Of a decided one, only a replay makes a pending one.
"""

DECIDABLE: Final = frozenset(state for state in State if TRANSITIONS[state] & _DECIDED)
"""The states from which a decision leads on."""

REPLAYABLE: Final = frozenset(state for state in State if State.PENDING in TRANSITIONS[state])
"""The states from which a replay makes a webhook pending again."""

FIRST_STATES: Final = frozenset({State.PENDING, State.QUARANTINED})
"""The states in which a webhook can be stored."""


class RoomState(StrEnum):
    """Name the state of a room that asked for an assistant."""

    WAITING = "waiting"
    STARTING = "starting"
    LIVE = "live"
    ENDING = "ending"
    ENDED = "ended"
    FAILED = "failed"


OVER: Final = frozenset({RoomState.ENDED, RoomState.FAILED})
"""The states of an entry that is over; a room has at most one entry in another state."""

OWNED: Final = frozenset({RoomState.STARTING, RoomState.LIVE, RoomState.ENDING})
"""The states in which a room belongs to a replica; every change from these names it."""


class RunOutcome(StrEnum):
    """Name how a run of an assistant ended."""

    LEFT = "left"
    """The coroutine returned, or the process exited with 0."""

    REFUSED = "refused"
    """It said that it cannot do its work there: AssistantRefused, or exit code 75 or 69."""

    FAILED = "failed"
    """It raised, exited with another code, was ended by a signal, or could not be started."""

    EXHAUSTED = "exhausted"
    """The system had no thread, file or memory left for it."""

    STOPPED = "stopped"
    """It was asked to end, for the reason that the run names."""

    SESSION_OVER = "session over"
    """It was asked to end because its session had ended, or another one had started."""

    HANDED_OVER = "handed over"
    """Its replica stopped, and gave the room to another."""

    REPLICA_DIED = "replica died"
    """Its replica died or lost its lease, so nobody saw how it ended."""


class ReplicaEnding(StrEnum):
    """Name how a replica ended."""

    STOPPED = "stopped"
    """It drained and gave back what it owned."""

    LEASE_LOST = "lost its lease"
    """It could not renew its lease in time, and went on under a new id."""

    DIED = "died"
    """Another replica found it dead."""

    @classmethod
    def of(cls, stored: str) -> "ReplicaEnding | None":
        """Return the ending that a store holds, or None for a replica that has not ended."""
        return cls(stored) if stored else None


OUTLIVED: Final = frozenset({ReplicaEnding.STOPPED, ReplicaEnding.LEASE_LOST})
"""The endings of a replica that its process outlived, so that no webhook can have ended it."""


def sql_in(states: Iterable[StrEnum]) -> str:
    """Return the SQL condition that a column's value is one of some states: `= 'pending'`, `IN ('fired', 'failed')`.

    The values are text in the statement, not parameters: a planner uses a partial index only for a constant.
    """
    quoted = [f"'{state}'" for state in sorted(states)]
    return f"= {quoted[0]}" if len(quoted) == 1 else f"IN ({', '.join(quoted)})"
