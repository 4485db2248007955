"""One assistant's run in its room, as the supervisor holds it."""

import asyncio
from collections.abc import Callable

from whereby_trigger.assist.follow import End
from whereby_trigger.assist.session import Session
from whereby_trigger.errors import DecodeError
from whereby_trigger.store import Room
from whereby_trigger.webhook import Webhook, decode, room_from_url


class Run:
    """Hold a room that is this replica's, its session, and the tasks that launch it and see it through.

    `stop` is why the assistant was asked to end, `handed_over` whether it was ended for another replica's sake,
    `extend` moves a process assistant's deadline, `hears` tells whether anybody can read what the session is told,
    `heard_to` is the number up to which it has been told of all that concerns it, which is what came after the number
    of its room.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.session = Session(room_from_url(room.url), _decoded(room.body), room.attempt)
        self.stop: str | None = None
        self.handed_over = False
        self.extend: Callable[[float], None] | None = None
        self.launched: asyncio.Task[End] | None = None
        self.seen_through: asyncio.Task[None] | None = None
        self.hears = True
        self.heard_to = room.seq
        self._heard: set[int] = set()

    def hear(self, seq: int, body: bytes) -> None:
        """Pass a webhook of the room on to the session, unless it came before the session or is known to it."""
        if seq <= max(self.heard_to, self.room.seq) or seq in self._heard:
            return
        self._heard.add(seq)
        webhook = _decoded(body)
        if webhook is not None:
            self.session.hear(webhook)

    def heard_all_to(self, upto: int) -> None:
        """Take note that nothing with a number up to this one is still to come.

        A store that cannot say so yet of a number as young as the session's beginning names a lower one: from there
        on the session hears with the others, instead of by itself.
        """
        fresh = self.heard_to == self.room.seq
        self.heard_to = upto if fresh else max(self.heard_to, upto)
        self._heard = {seq for seq in self._heard if seq > self.heard_to}

    def hand_over(self, reason: str) -> None:
        """End the session, so that another replica can take the room."""
        self.handed_over = True
        self.session.ended.set(reason)

    def cut_off(self, reason: str) -> None:
        """End the run now, without waiting for the assistant to return by itself."""
        self.hand_over(reason)
        # Once: cancelled again, the run would leave behind an assistant that takes no notice of it.
        if self.launched is not None and not self.launched.cancelling():
            self.launched.cancel()


def _decoded(body: bytes | None) -> Webhook | None:
    try:
        return None if body is None else decode(body)
    except DecodeError:
        return None
