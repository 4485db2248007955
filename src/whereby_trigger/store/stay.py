"""How long an assistant stays: until its session is over by what the room's webhooks say, or a bound is reached. Pure.

A room has one session at a time, so the times at which webhooks were created put its sessions in order. The outcome is
the same in whatever order the webhooks came.
"""

from collections.abc import Iterable, Sequence, Set
from math import inf
from typing import Final

from msgspec import Struct

from whereby_trigger.store.presence import SessionChange, session_change
from whereby_trigger.store.records import RoomRequest
from whereby_trigger.webhook import decode


def session_changes(key: str, webhooks: Iterable[tuple[bytes, float]]) -> list[SessionChange]:
    """Return what webhooks of a room, each a body and when it was received, say of its sessions."""
    changes = (session_change(decode(body), key, received_at) for body, received_at in webhooks)
    return [said for said in changes if said is not None]


def is_over(request: RoomRequest, changes: Sequence[SessionChange]) -> bool:
    """Return True if the session of the webhook that fired is over, by what the room's other webhooks say."""
    session_id, asked_at = request.session_id, request.asked_at
    if session_id is None and are_two(started_after(asked_at, changes)):
        return True
    since = min(asked_at, begun(session_id, changes))
    return any(
        said.ends(session_id, since if said.started else asked_at) or _ended_later(said, request, changes)
        for said in changes
    )


def _ended_later(said: SessionChange, request: RoomRequest, changes: Sequence[SessionChange]) -> bool:
    """Return True if this is the end of a session that came after that of the request."""
    if said.started or None in (said.session_id, request.session_id) or said.session_id == request.session_id:
        return False
    return request.asked_at < said.time < inf and begun(said.session_id, changes) > request.asked_at


def started_after(asked_at: float, changes: Iterable[SessionChange]) -> set[str | None]:
    return {said.session_id for said in changes if said.started and asked_at < said.time < inf}


def are_two(sessions: Set[str | None]) -> bool:
    """Return True if these are two sessions: that of a request which is earlier than both is over."""
    return len(sessions - {None}) > 1


def begun(session_id: str | None, changes: Sequence[SessionChange]) -> float:
    """Return when a session started, or infinity if that is unknown."""
    if session_id is None:
        return inf
    return min((said.time for said in changes if said.started and said.session_id == session_id), default=inf)


def differ(one: RoomRequest, other: RoomRequest) -> bool:
    return None not in (one.session_id, other.session_id) and one.session_id != other.session_id


def is_end_of_third(session_id: str | None, successor: RoomRequest, said: SessionChange) -> bool:
    """Return True if this is the end of a session that came after an entry's and its successor's."""
    sessions = (session_id, successor.session_id)
    known = not said.started and said.session_id is not None and None not in sessions
    return known and said.session_id not in sessions and successor.asked_at < said.time < inf


class Bounds(Struct, frozen=True):
    """Bound how long an assistant stays, in seconds; None lifts a bound.

    It leaves a room that is known to hold no human for `leave_when_empty`, and any room after `max_duration`.
    """

    leave_when_empty: float | None
    max_duration: float | None

    @property
    def words(self) -> str:
        """What the assistant does, for a person to read."""
        leaves = []
        if self.leave_when_empty is not None:
            leaves.append(f"an empty room after {_in_words(self.leave_when_empty)}")
        if self.max_duration is not None:
            leaves.append(f"any room after {_in_words(self.max_duration)}")
        return f"leaves {' and '.join(leaves)}" if leaves else "stays until its session ends"

    def reached(self, empty: float | None, lasted: float | None) -> str | None:
        """Return in words which bound is reached, or None.

        `empty` is for how many seconds the room is known to hold no human since its assistant was asked for, None if it
        is not known. `lasted` is the seconds since its first start, None before that. Both are by the store's clock.
        """
        leave, most = self.leave_when_empty, self.max_duration
        if empty is not None and leave is not None and empty >= leave:
            return f"nobody was in the room for {_in_words(leave)}"
        if lasted is not None and most is not None and lasted >= most:
            return f"an assistant for {_in_words(most)}: max_duration"
        return None


UNBOUNDED: Final = Bounds(None, None)


def _in_words(seconds: float) -> str:
    if seconds >= 3600 and seconds % 3600 == 0:
        return f"{seconds / 3600:,.0f} h"
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds:,.0f} s" if seconds % 1 == 0 else f"{seconds:,} s"
