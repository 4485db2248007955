"""How long an assistant stays in a room: bounds, and the rule that says when one is reached."""

from typing import Final

from msgspec import Struct


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
