"""What can become of a webhook: every state and every way from one to another."""

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
