"""The open entry of a room, and what a request, a stop and a session's change do to it."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from msgspec import structs

from whereby_trigger.store.records import RoomClaim, RoomRequest, SessionChange, session_change
from whereby_trigger.store.states import RoomState
from whereby_trigger.webhook import decode


class OpenRoom(NamedTuple):
    """Hold the open entry of a room, as far as requests and ends are concerned with it."""

    id: int
    state: RoomState
    owner: str | None
    stop: str | None
    session_id: str | None
    asked_at: float
    successor: str | None

    @property
    def is_ending(self) -> bool:
        # Its assistant may not have been told yet, but what comes now is for the next one.
        return self.state is RoomState.ENDING or self.stop is not None

    @property
    def met(self) -> RoomClaim:
        """What a request for the room is told."""
        return RoomClaim(False, RoomState.ENDING if self.is_ending else self.state, self.owner)

    def loses_successor(self, change: SessionChange) -> bool:
        """Tell whether the session of the assistant that was to start next is over with this."""
        if self.successor is None:
            return False
        successor = unpack(self.successor)
        return change.ends(successor.session_id, successor.asked_at)

    def why_to_stop(self, change: SessionChange) -> str | None:
        """Say why the assistant is to end with this; None where it is not."""
        if not change.ends(self.session_id, self.asked_at):
            return None
        return "another session has started" if change.started else "the session has ended"


def is_over(request: RoomRequest, bodies: Iterable[bytes]) -> bool:
    """Tell whether the session of the webhook that fired is over by what the room's other webhooks say of sessions."""
    changes = (session_change(decode(body), request.key) for body in bodies)
    return any(change is not None and change.ends(request.session_id, request.asked_at) for change in changes)


def pack(request: RoomRequest) -> str:
    """Write the request that is to be served next, as it is stored with the one that is ending."""
    return json.dumps(structs.asdict(request))


def is_older(successor: str, than: float) -> bool:
    """Tell whether the request that was to be served next was made before a time."""
    return unpack(successor).asked_at < than


def unpack(successor: str) -> RoomRequest:
    """Read a request that was stored to be served next."""
    return RoomRequest(**json.loads(successor))
