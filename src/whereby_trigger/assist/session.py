"""The session: what an assistant is given, and what it hears until its end."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Final

from whereby_trigger.webhook import RoomClientJoined, RoomClientLeft, RoomIdentity, Webhook

UNREAD: Final = 1000
"""Webhooks that a session keeps for `webhooks()`: an assistant that never reads them stays for hours."""

Counted = RoomClientJoined | RoomClientLeft


class _RoomLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, message: Any, keywords: Any) -> tuple[Any, Any]:
        return f"[{(self.extra or {}).get('room')}] {message}", keywords


class Ended:
    """Tell when and why an assistant is to leave: await it, or look at it. `reason` is "" until then."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._event = asyncio.Event()
        self._told = told
        self.reason = ""

    def is_set(self) -> bool:
        """Tell whether the assistant is to leave."""
        return self._event.is_set()

    async def wait(self) -> str:
        """Wait until the assistant is to leave, and return why."""
        await self._event.wait()
        return self.reason

    def __await__(self) -> Generator[None, None, str]:
        return self.wait().__await__()

    def set(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()
            self._told()


class Session:
    """Hold an assistant's room, the webhook that fired, and what happens in the room from there on.

    `webhook` is None for an assistant that was started by hand. `attempt` is 1, and one more for each start after it.
    `log` is a logger that names the room. `ended` is set when the assistant is to leave: the room's session has ended,
    somebody asked, or the replica drains; it then has `stop_grace` seconds before it is cancelled. `missed` counts the
    webhooks that were dropped because too many were unread.
    """

    def __init__(self, room: RoomIdentity, webhook: Webhook | None, attempt: int) -> None:
        self.room_url = room.url
        self.room_name = room.name
        self.subdomain = room.subdomain
        self.webhook = webhook
        self.attempt = attempt
        self.log = _RoomLog(logging.getLogger("whereby_trigger.assistant"), {"room": room.key})
        self._news = asyncio.Event()
        self.ended = Ended(self._news.set)
        self.missed = 0
        self._heard: deque[Webhook] = deque(maxlen=UNREAD)
        self._read = False
        self._counted: Counted | None = None
        if webhook is not None:
            self._count(webhook)

    @property
    def humans(self) -> int | None:
        """How many people are in the room by the last counts, bots left out; None while that is unknown."""
        return None if self._counted is None else self._counted.data.humans

    async def webhooks(self) -> AsyncIterator[Webhook]:
        """Yield the room's webhooks that came after the one that fired, as they come; end when the session has.

        Of those that are unread, the newest 1,000 are kept.
        """
        self._read = True
        while True:
            while self._heard:
                yield self._heard.popleft()
            if self.ended.is_set():
                return
            self._news.clear()
            await self._news.wait()

    def deliver(self, webhook: Webhook) -> None:
        """Take in one more webhook of the room."""
        self._count(webhook)
        if len(self._heard) == UNREAD:
            self._miss()
        self._heard.append(webhook)
        self._news.set()

    def _miss(self) -> None:
        self.missed += 1
        if self.missed == 1:
            # An assistant that never asks for webhooks misses nothing that it wants.
            level = logging.WARNING if self._read else logging.INFO
            self.log.log(level, "more than %s webhooks are unread: only the newest are kept", f"{UNREAD:,}")

    def _count(self, webhook: Webhook) -> None:
        if isinstance(webhook, Counted) and webhook.data.humans is not None and not self._is_older(webhook):
            self._counted = webhook

    def _is_older(self, webhook: Counted) -> bool:
        last = self._counted
        if last is None or last.created_at is None or webhook.created_at is None:
            return False
        return webhook.created_at < last.created_at
