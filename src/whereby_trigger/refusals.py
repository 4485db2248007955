"""What this replica did not let in: counts by minute and reason, on their way to the store, and the newest in full."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import Final

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.store import MINUTE, RefusalCount, RefusalReason, Store
from whereby_trigger.store.futures import ignore_result
from whereby_trigger.text import printable

logger = logging.getLogger("whereby_trigger.store")

STORE_EVERY: Final = 10.0
"""Seconds between two writes of what was counted."""

NEWEST_KEPT: Final = 100
LONGEST_PATH: Final = 200
MOST_COUNTS: Final = 2000
"""Counts that wait for the store, one for each minute and reason: about 100 minutes of every kind of refusal."""


class RefusedDelivery(Struct, frozen=True):
    """Describe a refused delivery, or `count` connections that were closed at once, without anything of a body.

    `at` is in seconds since the epoch; `path` is printable, and empty if it is not known; `status` is 0 if there was no
    answer; `skew` is how far a right signature was off, in seconds.
    """

    at: float
    path: str
    status: int
    reason: RefusalReason
    skew: float | None
    count: int


class _Count(Struct):
    """Count refusals; the store has the first `stored` of them, as those of `replica`."""

    count: int = 0
    stored: int = 0
    replica: str = ""


class Refusals:
    """Count refusals for the store, and keep the newest; memory is bounded, whatever anybody sends.

    A count of a minute only grows, and the store keeps the highest: what could not be stored is part of the next try.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, RefusalReason], _Count] = {}
        self.newest: deque[RefusedDelivery] = deque(maxlen=NEWEST_KEPT)

    def note(self, reason: RefusalReason, path: str = "", skew: float | None = None, count: int = 1) -> None:
        """Count refusals that happen now."""
        now = time.time()
        shown = printable(path[:LONGEST_PATH])[:LONGEST_PATH]
        self.newest.append(RefusedDelivery(now, shown, reason.status, reason, skew, count))
        key = (int(now) // MINUTE * MINUTE, reason)
        if key not in self._counts:
            if len(self._counts) >= MOST_COUNTS:
                self._merge_oldest()
            self._counts[key] = _Count()
        self._counts[key].count += count

    async def keep(self, store: Store) -> None:
        """Store what is counted every STORE_EVERY seconds, until cancelled."""
        while True:
            await asyncio.sleep(STORE_EVERY)
            # Not logged: what the store cannot take now is told where deliveries wait for it.
            with contextlib.suppress(StoreError):
                await self.store(store)

    async def store(self, store: Store) -> None:
        """Store what was counted since the last time. Raises StoreError, and then it is part of the next try."""
        counts = self._unstored(store.replica)
        if counts:
            await store.add_refusals(counts)
        for each in counts:
            # While the store was asked, it may have been merged into a later minute.
            if (held := self._counts.get((each.minute, RefusalReason(each.reason)))) is not None:
                held.stored = each.count
        present = int(time.time()) // MINUTE * MINUTE
        for key in [key for key, held in self._counts.items() if key[0] < present and held.stored == held.count]:
            del self._counts[key]

    def store_last(self, store: Store) -> None:
        """Hand what was counted to a store that is about to close, which finishes what it was given before."""
        if counts := self._unstored(store.replica):
            asyncio.ensure_future(store.add_refusals(counts)).add_done_callback(ignore_result)

    def _unstored(self, replica: str) -> list[RefusalCount]:
        counts: list[RefusalCount] = []
        for (minute, reason), held in self._counts.items():
            if held.replica != replica:
                # Its lease was lost, and it has another id now: that counts from 0.
                held.count, held.stored, held.replica = held.count - held.stored, 0, replica
            if held.count > held.stored:
                counts.append(RefusalCount(minute, reason, replica, reason.status, held.count))
        return counts

    def _merge_oldest(self) -> None:
        """Count the oldest minute as part of the next one that has a count of the same reason."""
        oldest: dict[RefusalReason, tuple[int, RefusalReason]] = {}
        for key in self._counts:
            if key[1] in oldest:
                merged = self._counts.pop(oldest[key[1]])
                self._counts[key].count += merged.count - merged.stored
                return
            oldest[key[1]] = key
