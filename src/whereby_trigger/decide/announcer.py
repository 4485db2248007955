"""The announcer: calls the listeners of assistants' events, one event after the other, and holds up nobody."""

import asyncio
import contextlib
import logging
from functools import partial
from typing import Final

from whereby_trigger.assist import (
    ASSISTANT_EVENT_ENDED,
    ASSISTANT_EVENT_FAILED,
    ASSISTANT_EVENT_STARTED,
    AssistantEvent,
)
from whereby_trigger.decide.emitter import Emitter
from whereby_trigger.decide.predicates import brief_error
from whereby_trigger.decide.user_code import UserCode
from whereby_trigger.store import RoomState
from whereby_trigger.webhook import room_from_url

logger = logging.getLogger("whereby_trigger.decide")

MOST_WAITING: Final = 1000
"""Maximum events that wait for listeners; more are dropped, and the log says so."""

NAMES: Final = {
    RoomState.LIVE: ASSISTANT_EVENT_STARTED,
    RoomState.ENDED: ASSISTANT_EVENT_ENDED,
    RoomState.FAILED: ASSISTANT_EVENT_FAILED,
}


class Announcer:
    """Tell listeners what became of this replica's assistants, in the order in which it was committed."""

    def __init__(self, emitter: Emitter, user_code: UserCode) -> None:
        self._emitter = emitter
        self._user_code = user_code
        self._waiting: asyncio.Queue[AssistantEvent] = asyncio.Queue(MOST_WAITING)
        self.told = 0
        """How many events listeners were called for so far."""

        self._announced = 0
        self._heard = 0

    def announce(self, event: AssistantEvent) -> None:
        """Have the listeners of an event called, and return at once."""
        if not self._emitter.listeners(NAMES[event.state]):
            return
        try:
            self._waiting.put_nowait(event)
            self._announced += 1
        except asyncio.QueueFull:
            logger.warning(
                "nobody is told that the assistant in %s is %s: the listeners of %d earlier events have not returned",
                event.room_url,
                event.state,
                MOST_WAITING,
                extra=_fields(event),
            )

    @property
    def idle(self) -> bool:
        """True if listeners were called for every event; async ones may still run."""
        return self._heard == self._announced

    async def run(self) -> None:
        """Tell what is announced, until cancelled."""
        while True:
            event = await self._waiting.get()
            self.told += 1
            try:
                await self._emitter.emit(NAMES[event.state], event, self._user_code, partial(_failed, event))
            finally:
                self._heard += 1
                self._waiting.task_done()

    async def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until everything announced was told; async listeners may still run then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._waiting.join()


def _failed(event: AssistantEvent, listener: str, error: BaseException) -> None:
    words = listener, brief_error(error), NAMES[event.state], event.room_url
    logger.warning("listener %s %s (%s of %s)", *words, extra=_fields(event))


def _fields(event: AssistantEvent) -> dict[str, object]:
    """Return the fields of a log line about an event, without the attempt: lines that have one are not folded."""
    fields: dict[str, object] = {"room": room_from_url(event.room_url).key}
    return fields if event.webhook_id is None else fields | {"webhook_id": event.webhook_id}
