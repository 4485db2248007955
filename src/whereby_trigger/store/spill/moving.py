"""Moving deliveries out of the spool into the database, the oldest first, each until the database has it."""

import asyncio
import logging
from collections.abc import Callable

from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.protocol import Store
from whereby_trigger.store.records import Added, Arrival
from whereby_trigger.store.spill.spool import Spool, Spooled
from whereby_trigger.store.states import State
from whereby_trigger.webhook import identify

logger = logging.getLogger("whereby_trigger.spill")

UNREADABLE = "this program cannot read it"
REFUSED = "the database refuses it"


class Mover:
    """Move deliveries into the database; `moved` is called when some are there, before they leave the spool.

    What the database refuses for its values was answered 200 already, and must not hold up the rest: it is stored as
    quarantined, with its bytes and nothing read in them; where even that is refused, it is kept aside in the spool.
    """

    def __init__(self, store: Store, spool: Spool, moved: Callable[[], None]) -> None:
        self._store = store
        self._spool = spool
        self._moved = moved

    async def move_oldest(self) -> int:
        """Move some of the oldest; return how many. Raises StoreUnavailable where the database or the disk is away."""
        rows = await self._spool.head()
        outcomes = await asyncio.gather(*[self._add(row) for row in rows], return_exceptions=True)
        stored = [row.seq for row, outcome in zip(rows, outcomes, strict=True) if isinstance(outcome, Added)]
        if stored:
            self._moved()
            await self._spool.remove(stored)
        for row, outcome in zip(rows, outcomes, strict=True):
            if _is_refusal(outcome):
                await self._keep(row)
            elif isinstance(outcome, BaseException):
                raise outcome if isinstance(outcome, StoreUnavailable) else StoreUnavailable(type(outcome).__name__)
        return len(stored)

    def _add(self, row: Spooled) -> "asyncio.Future[Added]":
        if row.arrival is not None:
            return asyncio.ensure_future(self._store.add(row.arrival))
        unreadable: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        unreadable.set_exception(StoreError(UNREADABLE))
        return unreadable

    async def _keep(self, row: Spooled) -> None:
        if row.arrival is not None and await self._quarantine(row.arrival):
            await self._spool.remove([row.seq])
            return
        reason = UNREADABLE if row.arrival is None else REFUSED
        logger.error("a delivery is kept aside in the spill %s: %s", self._spool.path, reason)
        await self._spool.set_aside(row.seq, reason)

    async def _quarantine(self, arrival: Arrival) -> bool:
        id, reason = identify(arrival.body), "the database refused what was read in it"
        plain = Arrival(
            id, "", None, arrival.body, arrival.received_at, State.QUARANTINED, reason, kept_until=arrival.kept_until
        )
        try:
            await self._store.add(plain)
        except StoreUnavailable:
            raise
        except StoreError:
            return False
        logger.error("a delivery from the spill is quarantined as %s: %s", id, reason)
        return True


def _is_refusal(outcome: object) -> bool:
    return isinstance(outcome, StoreError) and not isinstance(outcome, StoreUnavailable)
