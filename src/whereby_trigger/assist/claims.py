"""What a success does for its room: it claims it, or finds that it has an assistant; in words, for the decision."""

from collections.abc import Callable

from whereby_trigger.assist.supervisor import Supervisor
from whereby_trigger.store import RoomClaim, RoomRequest, RoomState, Store, session_of
from whereby_trigger.webhook import Room, RoomClientJoined, RoomClientLeft, RoomWebhook, Webhook, is_human


class Claims:
    """Let the room of a success wait for an assistant; with `bots`, that of a bot's own join too.

    `claimed` is told each room that gets one, and because of which webhook.
    """

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        *,
        bots: bool,
        claimed: Callable[[Room, Webhook], None] = lambda room, webhook: None,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._bots = bots
        self._claimed = claimed

    async def claim(self, room: Room, webhook: Webhook, now: float) -> str:
        """Claim the room of a webhook that fired; return what came of it. Raises StoreUnavailable."""
        if not self._bots and isinstance(webhook, RoomClientJoined | RoomClientLeft) and not is_human(webhook):
            return "no assistant for a bot's own event: is_human"
        claim = await self._store.request(request_for(room, webhook, now))
        if claim.new:
            self._claimed(room, webhook)
            self._supervisor.wake()
        return self._words(claim)

    def _words(self, claim: RoomClaim) -> str:
        if claim.new:
            return "an assistant starts" if self._supervisor.free > 0 else "no free slot: the room waits"
        if claim.state is RoomState.ENDED:
            return "no assistant: its session has ended already"
        if claim.state is RoomState.WAITING:
            return "the room waits for an assistant already"
        if claim.state is RoomState.ENDING:
            return "the room's assistant is ending, another starts next"
        return f"room has an assistant, on replica {claim.owner}"


def request_for(room: Room, webhook: Webhook | None, now: float) -> RoomRequest:
    """Ask for an assistant in a room because of a webhook, or by hand."""
    if not isinstance(webhook, RoomWebhook):
        return RoomRequest(room.key, room.url, None, None, now)
    asked_at = now if webhook.created_at is None else webhook.created_at.timestamp()
    return RoomRequest(room.key, room.url, webhook.id, session_of(webhook), asked_at)
