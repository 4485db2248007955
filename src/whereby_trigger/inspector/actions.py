"""Replay, ask again, start and stop: what a person can do in the inspector.

Each action is logged, and is stored before it takes effect, so that the store knows of all that was done.
"""

import time
from collections.abc import Mapping
from typing import Final
from uuid import uuid4

from whereby_trigger.assist import request_for
from whereby_trigger.config import Settings
from whereby_trigger.decide import UserCode
from whereby_trigger.decide.predicates import Predicate, ask
from whereby_trigger.errors import ConfigError, DecodeError
from whereby_trigger.inspector import InspectedProgram
from whereby_trigger.inspector.security import Refused
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import (
    UNKNOWN,
    ActionKind,
    ActionRecord,
    Presence,
    Query,
    Record,
    RoomQuery,
    Store,
)
from whereby_trigger.text import printable
from whereby_trigger.webhook import decode, room_from_url

logger = own_logger("whereby_trigger.inspector")

ACTOR: Final = "inspector"
"""The actor, as the store and the timelines name it."""

DONE: Final[Mapping[str, str]] = {
    "replay": "The webhook will be decided again: at once if a trigger runs on this store, otherwise when one starts.",
    "start": "The room waits for an assistant: it starts at once if a trigger with a free slot runs on this store.",
    "had": "The room has an assistant already; nothing was changed.",
    "stop": "The assistant was asked to leave.",
    "gone": "There was nothing to do: the room has no assistant now.",
    "kept": "Nothing was replayed: the webhook is not decided yet, or what it said of people was removed.",
}
"""What a page says after an action. Its address names one of these, so that no link can make it say anything else."""


class Actions:
    """Act on the store of a program, and ask its predicates."""

    def __init__(self, program: InspectedProgram, settings: Settings) -> None:
        self._program = program
        self._settings = settings

    async def replay(self, id: str) -> str:
        """Replay a webhook, and return the key of DONE for what happened. Raises Refused if it is not stored."""
        async with self._program.to_change() as store:
            record = await _stored(store, id)
            await _note(store, ActionKind.REPLAY, record.room, id)
            replayed = await store.replay(Query(ids=(id,)), time.time())
        if not replayed:
            return "kept"
        logger.info("inspector: webhook %s is replayed", printable(id))
        return "replay"

    async def start(self, key: str) -> str:
        """Ask for an assistant in a room, and return the key of DONE for what happened.

        Raises Refused if the key is no room's.
        """
        try:
            room = room_from_url(f"https://{key}")
        except ConfigError as error:
            raise Refused(400, str(error)) from None
        async with self._program.to_change() as store:
            await _note(store, ActionKind.START, room.key, None)
            claim = await store.request(request_for(room, None, time.time()))
        logger.info("inspector: an assistant is asked for in %s", printable(room.key))
        return "start" if claim.new else "had"

    async def stop(self, key: str) -> str:
        """Ask a room's assistant to leave, and return the key of DONE for what happened."""
        async with self._program.to_change() as store:
            if not await store.find_rooms(RoomQuery(room=key, open=True, limit=1)):
                return "gone"
            await _note(store, ActionKind.STOP, key, None)
            state = await store.stop(key, "stopped by inspector")
        logger.info("inspector: the assistant in %s is stopped", printable(key))
        return "gone" if state is None else "stop"

    def askable(self, record: Record) -> bool:
        """Return True if the program has a predicate for a webhook."""
        return self._program.predicates.by_type.get(record.type) is not None

    async def ask(self, id: str) -> str:
        """Ask the predicate about a stored webhook, and return what it would decide, as a sentence.

        It has no effect. Raises Refused if the webhook is not stored, or the program has no predicate for it.
        """
        async with self._program.to_change() as store:
            record = await _stored(store, id)
            predicate = self._program.predicates.by_type.get(record.type)
            if predicate is None:
                raise Refused(404, "This program has no predicate for the webhook.")
            if record.body_removed_at is not None:
                # The predicate would judge only the rest of what came.
                return "It cannot be asked: what it said of people was removed."
            await _note(store, ActionKind.DRY_RUN, record.room, id)
            verdict = await self._asked(store, record, predicate)
        logger.info("inspector: the predicate was asked about webhook %s, without effect", printable(id))
        return verdict

    async def _asked(self, store: Store, record: Record, predicate: Predicate) -> str:
        room = record.room
        try:
            webhook = decode(record.body)
        except DecodeError as error:
            return f"It cannot be asked: {error}"

        async def presence() -> Presence:
            return UNKNOWN if room is None else (await store.presences(frozenset({room}))).get(room, UNKNOWN)

        async def at_once(_: float) -> None:
            return

        user_code = UserCode(self._settings.predicate_timeout)
        try:
            verdict = await ask(predicate, webhook, presence, user_code, at_once)
        finally:
            await user_code.drain(0)
            user_code.close()
        effect = {True: "It would fire now", False: "It would be skipped now", None: "It would fail now"}
        return f"{effect[verdict.answer]}: {verdict.reason}."


async def _stored(store: Store, id: str) -> Record:
    found = await store.find(Query(ids=(id,)))
    if not found:
        raise Refused(404, f"No webhook {printable(id[:200])!r} is stored; retention may have passed.")
    return found[0]


async def _note(store: Store, kind: ActionKind, room: str | None, webhook: str | None) -> None:
    await store.add_action(ActionRecord(uuid4().hex, time.time(), ACTOR, kind, room, webhook))
