"""What a supervisor tells of its assistants: that one started, ended, or failed for good."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from whereby_trigger.store import RoomState

ASSISTANT_EVENT_STARTED: Final = "assistant_event_started"
"""The event of an assistant that is live in its room."""

ASSISTANT_EVENT_ENDED: Final = "assistant_event_ended"
"""The event of a room whose assistant has left, or was asked to."""

ASSISTANT_EVENT_FAILED: Final = "assistant_event_failed"
"""The event of a room whose assistant failed for good."""


class AssistantEvent(Struct, frozen=True):
    """Tell what became of an assistant: its room's URL, its state now and why, and which attempt it was.

    `state` is `live`, `ended` or `failed`. `reason` of one that is live says why an earlier attempt was over; it is ""
    at the first. `webhook_id` is the webhook that fired, or None if the assistant was started by hand.
    """

    room_url: str
    state: RoomState
    reason: str
    attempt: int
    webhook_id: str | None


Announce = Callable[[AssistantEvent], None]
"""Have an event told; returns at once."""


def announce_nothing(event: AssistantEvent) -> None:
    """Stand in for what tells listeners, where nobody listens."""
