"""What follows when an assistant's run is over: the room's next state, with the reason and the pause before it."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from whereby_trigger.store import RoomState

BACKOFF: tuple[float, ...] = (1.0, 5.0, 15.0)
"""Seconds before an assistant that failed is started again, for the first, second and third time."""

HANDED_OVER: Final = "handed over by a replica that stopped"


class How(StrEnum):
    """Name how a run was over."""

    RETURNED = "returned"
    RAISED = "raised"
    REFUSED = "refused"
    CUT_OFF = "cut off"
    EXHAUSTED = "exhausted"
    """The system had no thread, file or memory left for it."""


class End(Struct, frozen=True):
    """Describe the end of one run: how, in words, whether another makes sense, and what was raised or printed."""

    how: How
    reason: str
    retry: bool = True
    errors: tuple[str, ...] = ()


class Following(Struct, frozen=True):
    """Say what becomes of the room: its state and reason, after how many seconds, and the restarts used up."""

    state: RoomState
    reason: str
    restarts: int
    pause: float = 0.0


def follow(end: End, *, restarts: int, stop: str | None, handing_over: bool) -> Following:
    """Decide what becomes of a room after a run.

    `stop` is why its assistant had been asked to end, `handing_over` whether it was ended for another replica's sake.
    """
    if stop is not None:
        return Following(RoomState.ENDED, stop, restarts)
    if handing_over:
        return Following(RoomState.WAITING, HANDED_OVER, restarts)
    if end.how is How.RETURNED:
        return Following(RoomState.ENDED, end.reason, restarts)
    if end.how is How.EXHAUSTED:
        # Another replica may have what this one lacks: the room is there for it at once.
        return Following(RoomState.WAITING, end.reason, restarts)
    if not end.retry:
        return Following(RoomState.FAILED, end.reason, restarts)
    if restarts >= len(BACKOFF):
        return Following(RoomState.FAILED, f"{end.reason}, after {restarts} restarts", restarts)
    again = f"{end.reason}: restart {restarts + 1} of {len(BACKOFF)}"
    return Following(RoomState.WAITING, again, restarts + 1, BACKOFF[restarts])
