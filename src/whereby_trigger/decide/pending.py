"""A stored webhook on its way to its decision, and the turn of one that is suspected of ending the process."""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from whereby_trigger.deliveries import session_id
from whereby_trigger.store import Pending
from whereby_trigger.store.presence import RoomCounts
from whereby_trigger.webhook import RoomIdentity, Webhook, decode, room_of


class PendingWebhook(Struct, frozen=True, eq=False):
    """Describe a stored webhook that is to be decided. `started` is when we got hold of it, by time.monotonic().

    If its hold has begun, it did so at `held_since` and is due at `due`, both by the boot clock; else they are None.
    `effect` is what it did to its room's assistant when it was stored, in words, and `counts` who was in its room then,
    if it came with a count.
    """

    seq: int
    webhook: Webhook
    room: RoomIdentity | None
    received_at: float
    queued_at: float
    started: float
    attempts: int = 0
    takeovers: int = 0
    held_since: float | None = None
    due: float | None = None
    effect: str = ""
    counts: RoomCounts | None = None

    @property
    def attempt(self) -> int:
        """Which attempt at a decision this is: 1, and one more for each replica that died before."""
        return self.takeovers + 1

    def log_fields(self, replica: str) -> dict[str, object]:
        """Return the fields of a log line about it."""
        fields: dict[str, object] = {"webhook_id": self.webhook.id, "replica": replica}
        about = {"room": None if self.room is None else self.room.key, "session_id": session_id(self.webhook)}
        return fields | {name: value for name, value in about.items() if value is not None}


def from_store(row: Pending, subdomain: str | None, now: float) -> PendingWebhook:
    """Decode a webhook that was read back at `now`; raises DecodeError where this program cannot."""
    webhook = decode(row.body)
    held_since = due = None
    if row.held_for is not None and row.due_in is not None:
        # If it was held in the future, the store's clock was set back: at most the whole hold is left.
        held_since = now - max(row.held_for, 0.0)
        due = held_since + row.held_for + row.due_in
    return PendingWebhook(
        seq=row.seq,
        webhook=webhook,
        room=room_of(webhook, subdomain),
        received_at=row.received_at,
        queued_at=row.queued_at,
        started=time.monotonic(),
        attempts=row.attempts,
        takeovers=row.takeovers,
        held_since=held_since,
        due=due,
        effect=row.effect,
    )


class PoisonIsolation:
    """Give each suspect a turn of its own, those that were blamed the least before the others.

    So a webhook that ends the process does so when the innocent ones that could go before it are decided, and kills
    from outside hit a different one each time.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._taken = False

    @asynccontextmanager
    async def alone(self, queued: PendingWebhook) -> AsyncIterator[None]:
        """Wait for a webhook's turn; it lasts as long as an `async with` block."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        heapq.heappush(self._waiting, (queued.attempts, queued.seq, turn))
        # Not at once: those that were queued together come one after the other.
        loop.call_soon(self._admit)
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._taken = False
                self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._taken:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._taken = True
                turn.set_result(None)
