"""Read who is in the rooms that predicates are asked about: one read for all that is asked in one turn of the loop."""

import asyncio
from functools import partial

from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Presence, Store

Asked = dict[str, list["asyncio.Future[Presence]"]]
"""Who waits for the presence of a room, by the room's key."""


class Presences:
    """Read the presence of rooms from the store, which replicas share."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: Asked = {}

    def of(self, room: str) -> "asyncio.Future[Presence]":
        """Read a room's presence as it is from now on; the future has the store's errors."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._read)
        asking: asyncio.Future[Presence] = loop.create_future()
        self._asked.setdefault(room, []).append(asking)
        return asking

    def _read(self) -> None:
        asked, self._asked = self._asked, {}
        reading = asyncio.ensure_future(self._store.presences(frozenset(asked)))
        reading.add_done_callback(partial(_answer, asked))


def _answer(asked: Asked, reading: "asyncio.Future[dict[str, Presence]]") -> None:
    error = StoreUnavailable("the store was closed") if reading.cancelled() else reading.exception()
    for room, waiting in asked.items():
        for one in waiting:
            if one.done():
                continue
            if error is None:
                one.set_result(reading.result()[room])
            else:
                one.set_exception(error)
