"""One assistant's run in its room, as the supervisor holds it."""

import asyncio
from collections.abc import Callable

from whereby_trigger.assist.session import Session
from whereby_trigger.errors import DecodeError
from whereby_trigger.store import Room
from whereby_trigger.webhook import Webhook, decode, room_from_url


class Run:
    """Hold a room that is this replica's, its session, and the task that sees it through.

    `stop` is why the assistant was asked to end, `extend` moves a process assistant's deadline, `heard_to` is the
    number of the last webhook that the session was told of or could have been.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.session = Session(room_from_url(room.url), _decoded(room.body), room.attempt)
        self.stop: str | None = None
        self.extend: Callable[[float], None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.heard_to = room.seq

    def hear(self, body: bytes) -> None:
        """Pass a webhook of the room on to the session."""
        webhook = _decoded(body)
        if webhook is not None:
            self.session.hear(webhook)

    def cut_off(self, reason: str) -> None:
        """End the run now, without waiting for the assistant to return by itself."""
        self.session.ended.set(reason)
        if self.task is not None:
            self.task.cancel()


def _decoded(body: bytes | None) -> Webhook | None:
    try:
        return None if body is None else decode(body)
    except DecodeError:
        return None
