"""A stored webhook on its way to its decision."""

import time

from msgspec import Struct

from whereby_trigger.store import Pending
from whereby_trigger.webhook import Room, Webhook, decode, room_of


class Queued(Struct, frozen=True, eq=False):
    """Describe a stored webhook that is to be decided. `started` is when we got hold of it, by time.monotonic()."""

    seq: int
    webhook: Webhook
    room: Room | None
    received_at: float
    queued_at: float
    started: float
    attempts: int = 0
    takeovers: int = 0

    @property
    def order(self) -> str | None:
        """The room in whose order it is decided; None where it has none and waits for nobody."""
        return None if self.room is None else self.room.key

    @property
    def attempt(self) -> int:
        """Which attempt at a decision this is: 1, and one more for each replica that died before."""
        return self.takeovers + 1

    @property
    def size(self) -> int:
        return len(self.webhook.raw)


def from_store(row: Pending, subdomain: str | None) -> Queued:
    """Decode a webhook that was read back; raises DecodeError where this program cannot."""
    webhook = decode(row.body)
    return Queued(
        seq=row.seq,
        webhook=webhook,
        room=room_of(webhook, subdomain),
        received_at=row.received_at,
        queued_at=row.queued_at,
        started=time.monotonic(),
        attempts=row.attempts,
        takeovers=row.takeovers,
    )
