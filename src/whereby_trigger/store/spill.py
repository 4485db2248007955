"""A store with a spill: deliveries that the database does not take in time wait in a file and follow in order."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Final

from msgspec import structs

from whereby_trigger.clock import Lease
from whereby_trigger.errors import StoreBusy, StoreError, StoreUnavailable
from whereby_trigger.loggers import own_logger
from whereby_trigger.store.protocol import Store, StoreErrors, Unread, Write, unheard
from whereby_trigger.store.records import Added, Arrival, Room
from whereby_trigger.store.spill_file import BATCH, SpilledDelivery, SpillFile
from whereby_trigger.store.states import State
from whereby_trigger.store.stay import UNBOUNDED, Bounds
from whereby_trigger.webhook import identify, redacted

SPILL_AFTER: Final = 2.0
"""Seconds that a delivery waits for the database before it goes to the spill.

The time that is then left until its answer is due must suffice for a sync to disk.
"""


class Route(Enum):
    """Name where deliveries go. Held ones wait until the last ones before them have left the spill file, the spool."""

    DATABASE = auto()
    SPOOL = auto()
    HELD = auto()


@dataclass(eq=False, slots=True)
class InTransit:
    """Carry one delivery that has no answer yet; `sent` is the database's future answer, or None while it is held."""

    arrival: Arrival
    answer: "asyncio.Future[Added]"
    late: asyncio.TimerHandle | None = None
    sent: "asyncio.Future[Added] | None" = None

    def stop_waiting(self) -> None:
        """Cancel the timer that would divert this delivery."""
        if self.late is not None:
            self.late.cancel()


class SpillRouter:
    """Send deliveries to the spill file, until told to release them to the database.

    If the database is unavailable or does not answer in time, all deliveries without an answer go to the spill file, in
    order, and so do those that follow. If the database stores one of them all the same, the copy in the spill file is
    found to be a duplicate later.
    """

    def __init__(self, store: Store, spill_file: SpillFile) -> None:
        self._store = store
        self._spill_file = spill_file
        self._route = Route.SPOOL
        self._in_transit: dict[InTransit, None] = {}
        self.diverted = asyncio.Event()
        self.why = ""

    @property
    def direct(self) -> bool:
        """Whether deliveries go to the database."""
        return self._route is Route.DATABASE

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        """Store a delivery, in the database or in the spill file."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Added] = loop.create_future()
        if self._route is Route.SPOOL:
            self._append(arrival, answer)
        else:
            passing = InTransit(arrival, answer)
            passing.late = loop.call_later(SPILL_AFTER, self._divert_late, passing)
            self._in_transit[passing] = None
            if self._route is Route.DATABASE:
                self._send(passing)
        return answer

    def divert(self, why: str) -> None:
        """Send deliveries to the spill file from now on, and keep the reason in words."""
        self._route, self.why = Route.SPOOL, why
        passing, self._in_transit = self._in_transit, {}
        for one in passing:
            one.stop_waiting()
            if one.sent is not None:
                # The store drops a write that it has not begun, so the delivery cannot overtake those before it.
                one.sent.cancel()
            self._append(one.arrival, one.answer)
        self.diverted.set()

    def hold(self) -> None:
        """Keep new deliveries back, each for at most as long as it would wait for the database."""
        self._route = Route.HELD

    def release(self) -> None:
        """Send deliveries to the database."""
        self._route = Route.DATABASE
        self.diverted.clear()
        for passing in self._in_transit:
            if passing.sent is None:
                self._send(passing)

    def _send(self, passing: InTransit) -> None:
        passing.sent = self._store.add(passing.arrival)
        passing.sent.add_done_callback(partial(self._answered, passing))

    def _divert_late(self, passing: InTransit) -> None:
        # If another transaction has locked its row, this delivery waits alone: the database takes all others.
        if not (isinstance(passing.sent, Write) and passing.sent.held_up):
            self.divert(f"the database did not answer within {SPILL_AFTER:g} s")

    def _answered(self, passing: InTransit, sent: "asyncio.Future[Added]") -> None:
        error = StoreUnavailable("it gave no answer") if sent.cancelled() else sent.exception()
        if passing not in self._in_transit:
            return
        if isinstance(error, StoreUnavailable) and not isinstance(error, StoreBusy):
            self.divert(str(error))
            return
        del self._in_transit[passing]
        passing.stop_waiting()
        _answer(passing.answer, error or sent.result())

    def _append(self, arrival: Arrival, answer: "asyncio.Future[Added]") -> None:
        self._spill_file.append(arrival).add_done_callback(partial(_appended, arrival, answer))


def _appended(arrival: Arrival, answer: "asyncio.Future[Added]", written: "asyncio.Future[None]") -> None:
    error = StoreUnavailable("the spill was closed") if written.cancelled() else written.exception()
    if isinstance(error, StoreUnavailable):
        error = StoreUnavailable(f"the database does not take it, and {error}")
    _answer(answer, error or Added(0, False, arrival.state, spilled=True))


def _answer(answer: "asyncio.Future[Added]", outcome: Added | BaseException) -> None:
    if answer.done():
        return
    if isinstance(outcome, Added):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)


logger = own_logger("whereby_trigger.spill")

UNREADABLE = "this program cannot read it"
REFUSED = "the database refuses it"


class SpillMover:
    """Move deliveries into the database; `unread` is told when some are there, before they leave the spill file.

    If the database refuses the values of a delivery, it was answered 200 already, and must not hold up the rest. It is
    stored as quarantined: its bytes, and nothing that was read in them. If even that is refused, it is set aside in the
    spill file.
    """

    def __init__(self, store: Store, spill_file: SpillFile, unread: Unread, redact: tuple[str, ...] = ()) -> None:
        self._store = store
        self._spill_file = spill_file
        self._unread = unread
        self._redact = redact

    async def move_oldest(self) -> int:
        """Move some of the oldest; return how many. Raises StoreUnavailable if the database or the disk fails."""
        rows = await self._spill_file.head()
        outcomes = await asyncio.gather(*[self._add(row) for row in rows], return_exceptions=True)
        stored = [row.seq for row, outcome in zip(rows, outcomes, strict=True) if isinstance(outcome, Added)]
        if stored:
            self._unread.fall_behind()
            self._unread.look()
            await self._spill_file.remove(stored)
        for row, outcome in zip(rows, outcomes, strict=True):
            if _is_refusal(outcome):
                await self._keep(row)
            elif isinstance(outcome, BaseException):
                raise outcome if isinstance(outcome, StoreUnavailable) else StoreUnavailable(type(outcome).__name__)
        return len(stored)

    def _add(self, row: SpilledDelivery) -> "asyncio.Future[Added]":
        if row.arrival is not None:
            return self._store.add(row.arrival)
        unreadable: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        unreadable.set_exception(StoreError(UNREADABLE))
        return unreadable

    async def _keep(self, row: SpilledDelivery) -> None:
        if row.arrival is not None and await self._quarantine(row.arrival):
            await self._spill_file.remove([row.seq])
            return
        reason = UNREADABLE if row.arrival is None else REFUSED
        logger.error("a delivery is kept aside in the spill %s: %s", self._spill_file.path, reason)
        await self._spill_file.set_aside(row.seq, reason)

    async def _quarantine(self, arrival: Arrival) -> bool:
        id, reason = identify(arrival.body), "the database refused what was read in it"
        body = redacted(arrival.body, self._redact)
        plain = Arrival(
            id, "", None, body, arrival.received_at, State.QUARANTINED, reason, kept_until=arrival.kept_until
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


JOIN_WITHIN: Final = 5.0
"""Seconds that a start waits for the database before it goes on without it."""

PING_WITHIN: Final = 1.0
"""Seconds that a ping waits for the database before it asks the spill file instead."""

SHORTEST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to reach a database that is unavailable; the pause doubles from the one to the other."""


class SpillStore:
    """Wrap a store that may be unavailable: each delivery is on some disk before it is answered.

    Everything else is passed on to the store. `unread` is told of deliveries that were moved out of the spill file.
    """

    def __init__(self, store: Store, spill_file: SpillFile, unread: Unread, redact: tuple[str, ...] = ()) -> None:
        self._store = store
        self._spill_file = spill_file
        self._router = SpillRouter(store, spill_file)
        self._mover = SpillMover(store, spill_file, unread, redact)
        self._settled = asyncio.Event()
        self._told = ""
        self._running: asyncio.Task[None] | None = None
        self.open_readonly, self.migrate = store.open_readonly, store.migrate
        self.decide, self.begin_attempt, self.append_error = store.decide, store.begin_attempt, store.append_error
        self.hold, self.ask_again, self.newest = store.hold, store.ask_again, store.newest
        self.take_over, self.pending, self.find = store.take_over, store.pending, store.find
        self.replay, self.prune = store.replay, store.prune
        self.replayable, self.prunable = store.replayable, store.prunable
        self.add_refusals, self.refusals, self.workload = store.add_refusals, store.refusals, store.workload
        self.add_action, self.find_actions = store.add_action, store.find_actions
        self.history, self.first_since = store.history, store.first_since
        self.renew, self.rejoin = store.renew, store.rejoin
        self.request, self.take, self.move, self.stop = store.request, store.take, store.move, store.stop
        self.rooms, self.webhooks_after = store.rooms, store.webhooks_after
        self.presences, self.occupied = store.presences, store.occupied
        self.find_rooms, self.find_runs = store.find_rooms, store.find_runs
        self.find_replicas, self.room_keys = store.find_replicas, store.room_keys
        self.records_after, self.old_bodies = store.records_after, store.old_bodies
        self.rewrite, self.drop = store.rewrite, store.drop

    @property
    def location(self) -> str:
        return self._store.location

    @property
    def replica(self) -> str:
        return self._store.replica

    @property
    def life(self) -> int | None:
        return self._store.life

    @property
    def lease(self) -> Lease:
        return self._store.lease

    @property
    def errors(self) -> StoreErrors:
        return self._store.errors

    @property
    def spilled(self) -> int:
        return self.length

    @property
    def length(self) -> int:
        """How many deliveries wait for the database."""
        return self._spill_file.length

    @property
    def settled(self) -> bool:
        """True if no delivery waits, or if the database would take none of them now."""
        return self._settled.is_set()

    async def open(self, changed: Callable[[], None] | None = None) -> None:
        """Take deliveries from now on, and open the database as soon as it is available: its lease begins then.

        Raises StoreError if the spill file cannot be used, or if the database is available and cannot be used.
        """
        await self._spill_file.open()
        if self.length:
            logger.info(
                "deliveries of an earlier run that wait in the spill %s: %d", self._spill_file.path, self.length
            )
        joining = asyncio.ensure_future(self._store.open(changed))
        try:
            await asyncio.wait({joining}, timeout=JOIN_WITHIN)
            if joining.done():
                joining.result()
                self._release_if_empty()
            else:
                self._say_away(f"no answer within {JOIN_WITHIN:g} s")
        except StoreUnavailable as error:
            self._say_away(str(error))
        except BaseException:
            joining.cancel()
            await asyncio.wait({joining})
            # It may just have opened.
            await self._store.close()
            await self._spill_file.close()
            raise
        self._running = asyncio.create_task(self._run(changed or unheard, joining), name="whereby-trigger spill")

    def add(self, arrival: Arrival) -> "asyncio.Future[Added]":
        """Store a delivery in the database, or in the spill file if that is unavailable; `spilled` says which."""
        return self._router.add(arrival)

    def stopping(self, bounds: Bounds = UNBOUNDED) -> Awaitable[list[Room]]:
        return self._store.stopping(self._judging(bounds))

    async def end_waiting(self, bounds: Bounds) -> None:
        await self._store.end_waiting(self._judging(bounds))

    def _judging(self, bounds: Bounds) -> Bounds:
        # While deliveries wait here, no room counts as empty: one of them may say that somebody joined.
        return structs.replace(bounds, leave_when_empty=None) if self.length else bounds

    async def ping(self, now: float) -> None:
        """Return if the database or the spill file takes deliveries now.

        Raises StoreUnavailable if neither does, and StoreError if the database takes them but would not keep them.
        """
        if self._router.direct:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(PING_WITHIN):
                    await self._store.ping(now)
                    return
        await self._spill_file.ping()

    async def wipe(self, *, rewrite: bool | None) -> str:
        # The bytes of deliveries that left the spill are wiped from its file once the spill is empty.
        spilled = "" if rewrite is False else await self._spill_file.wipe(rewrite=bool(rewrite))
        return "; ".join(filter(None, (await self._store.wipe(rewrite=rewrite), spilled)))

    async def settle(self, timeout: float) -> None:
        """Wait at most `timeout` seconds, until no delivery waits that the database would take now."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()

    async def close(self) -> None:
        """Stop moving deliveries, and close the file and the database. Deliveries in the file stay there."""
        # Close both, even if a wait is cancelled.
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._store.close)
            closing.push_async_callback(self._close_file)
            if self._running is not None:
                self._running.cancel()
                await asyncio.wait({self._running})

    async def _close_file(self) -> None:
        self._router.divert("the trigger stops")
        await self._spill_file.close()
        if self.length:
            logger.warning(
                "deliveries that stay in the spill %s until the next start: %d", self._spill_file.path, self.length
            )

    async def _run(self, changed: Callable[[], None], joining: "asyncio.Future[None]") -> None:
        joined = False
        while True:
            try:
                # Only once: a second open would make it another replica, and would not close what the first one opened.
                if not joined:
                    await self._joined(changed, joining)
                    joined = True
                await self._keep_empty()
            except Exception as error:
                # Retry after any error, such as a lack of memory: the deliveries that wait must still be moved.
                logger.warning("cannot empty the spill %s; will retry: %s", self._spill_file.path, _in_words(error))
            await asyncio.sleep(SHORTEST_PAUSE)

    async def _keep_empty(self) -> None:
        while True:
            await self._empty()
            await self._router.diverted.wait()
            self._say_away(self._router.why)

    async def _joined(self, changed: Callable[[], None], joining: "asyncio.Future[None]") -> None:
        pause = SHORTEST_PAUSE
        while True:
            try:
                return await joining
            except Exception as error:
                self._say_away(_in_words(error))
            pause = await self._rest(pause)
            joining = asyncio.ensure_future(self._store.open(changed))

    async def _empty(self) -> None:
        """Move all that waits, in order. At the end, hold new deliveries: a steady stream would never let it end."""
        moved, pause, answers = 0, SHORTEST_PAUSE, False
        while not self._release_if_empty():
            self._settled.clear()
            if answers and self.length <= BATCH:
                self._router.hold()
            try:
                moved += await self._move()
            except Exception as error:
                self._router.divert(_in_words(error))
                self._say_away(_in_words(error))
                pause, answers = await self._rest(pause), False
            else:
                pause, answers = SHORTEST_PAUSE, True
        if moved:
            with contextlib.suppress(StoreError):
                await self._spill_file.wipe()
            logger.info("the database is available again, and has stored the spilled deliveries: %d", moved)

    async def _move(self) -> int:
        if not self._store.lease.held:
            raise StoreUnavailable("this replica has no lease now")
        return await self._mover.move_oldest()

    def _release_if_empty(self) -> bool:
        if self.length:
            return False
        self._router.release()
        self._settled.set()
        self._told = ""
        return True

    async def _rest(self, pause: float) -> float:
        """Wait about `pause` seconds, or until the lease is renewed; return the next pause."""
        self._settled.set()
        with contextlib.suppress(TimeoutError):
            # Replicas that lost one database together should not come back to it together.
            async with asyncio.timeout(random.uniform(pause / 2, pause)):  # noqa: S311
                await self._store.lease.renewal()
        return min(2 * pause, LONGEST_PAUSE)

    def _say_away(self, why: str) -> None:
        if why != self._told:
            self._told = why
            logger.warning("deliveries go into the spill %s: %s", self._spill_file.path, why)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, StoreError) else type(error).__name__
