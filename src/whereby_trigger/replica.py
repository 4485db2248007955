"""One run of a trigger: its stages wired to each other, opened in order and drained in order."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from whereby_trigger import leftovers
from whereby_trigger.assist import Assistant, Claims, Fence, Supervisor, Watchdog, launcher
from whereby_trigger.clock import boot_time
from whereby_trigger.config import Settings
from whereby_trigger.decide import Backlog, Claim, Decider, Dispatcher, Emitter, PendingWebhook, Predicates, UserCode
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.errors import StoreError
from whereby_trigger.receive import Accepted, Delivery
from whereby_trigger.store import Added, Arrival, Decision, State, Store
from whereby_trigger.store.spill import Spill, SpillFile
from whereby_trigger.webhook import RoomIdentity, Webhook

logger = logging.getLogger("whereby_trigger")

PRUNE_EVERY = 3600.0
PING_WITHIN = 2.0
BEGIN_AGAIN = 1.0
DRAIN, CLOSING = "the drain", "the end, which the store held up"
DRAIN_MARGIN = 5.0
"""Seconds after a drain, and the grace of its assistants, in which user code that was cancelled must have returned."""

CLOSE_MARGIN = 5.0
"""Seconds in which the store must have closed after that."""

END_MARGIN = 2.0
"""Seconds after a second signal in which the process must have ended."""

Decided = Callable[[PendingWebhook, Decision], None]
Claimed = Callable[[RoomIdentity, Webhook], None]


class Replica:
    """Receive, store and decide with one open store, until closed.

    Without `starts_assistants`, a room that asks for an assistant waits for one that never comes.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        predicates: Predicates,
        emitter: Emitter,
        user_code: UserCode,
        assistant: Assistant | None = None,
        spill_file: SpillFile | None = None,
        *,
        starts_assistants: bool = True,
    ) -> None:
        self._settings = settings
        self.store = store
        self._user_code = user_code
        self._log = DeliveryLog(signed=settings.signed)
        self._observers: list[Decided] = [self._log.decided]
        self._claim_observers: list[Claimed] = []
        self._starts_assistants = starts_assistants
        self._watchdog = Watchdog()
        self._supervisor = None if assistant is None else self._supervise(assistant)
        self._fence = Fence(
            store,
            settings.lease_ttl,
            self._supervisor,
            self._watchdog,
            dropped=self._drop_queue,
            regained=self._regained,
        )
        self._decider = Decider(
            store,
            predicates,
            emitter,
            user_code,
            max_age=settings.max_age,
            subdomain=settings.subdomain,
            held=lambda: self._fence.lease.held,
            claim=self._claims(assistant),
        )
        self.dispatcher = Dispatcher(store, self._decider, self._decided)
        self._backlog = Backlog(
            store,
            self.dispatcher,
            max_age=settings.max_age,
            subdomain=settings.subdomain,
            claimed=self._wake_supervisor,
        )
        self._spill = None if spill_file is None else self._spilling(spill_file)
        self._loops: list[asyncio.Task[None]] = []
        self.draining = False

    async def open(self) -> None:
        """Open the store, and begin to decide what is pending in it; with a spill, a store that is away is waited for.

        Raises StoreError where the store, or the spill, cannot be used.
        """
        try:
            # At the end, when it is needed, there may be no thread left to start.
            self._watchdog.start()
            if self._spill is None:
                await self._join()
            else:
                self.dispatcher.cannot_read()
                await self._spill.open()
        except BaseException:
            self._watchdog.close()
            raise

    async def _join(self) -> None:
        sent = boot_time()
        await self.store.open(self._wake)
        self._fence.lease.begin(sent)
        self.dispatcher.fall_behind()
        loops = [self._backlog.run, self._prune, self._fence.lease.keep]
        if self._supervisor is not None and self._starts_assistants:
            loops += [self._supervisor.supervise, leftovers.keep_clean]
        self._loops = [asyncio.create_task(_kept_up(loop)) for loop in loops]

    async def drain(self, timeout: float, hurry: asyncio.Event, *, rooms: float | None = None) -> None:
        """Launch nothing more; wait for what runs and is queued at most `timeout` seconds, or until told to hurry.

        Assistants are waited for `rooms` seconds, if that is less; those that run on then have `stop_grace` to return.
        """
        self.draining = True
        finish = asyncio.create_task(self._finish(timeout, timeout if rooms is None else rooms))
        hurried = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait({finish, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (finish, hurried):
                task.cancel()
            await asyncio.gather(finish, hurried, return_exceptions=True)

    async def close(self, within: float) -> None:
        """Stop deciding after `within` seconds and close the store; what is pending there waits for the next start."""
        if self._spill is not None:
            await self._spill.close()
        if self._supervisor is not None:
            await self._supervisor.cut_off("the replica has stopped")
        await self.dispatcher.drain(within)
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.dispatcher.cancel()
        await self._user_code.drain(0)
        self._user_code.close()
        # No user code is waited for any more, but a disk or a database may hang.
        if self._watchdog.clear(DRAIN):
            self._watchdog.set(CLOSING, boot_time() + CLOSE_MARGIN)
        await self.store.close()
        self._watchdog.close()

    @property
    def awaited(self) -> str:
        """What a drain that began now would wait for, in words; "" where that is nothing."""
        awaited = {
            "assistants are in their rooms": self._supervisor is not None and self._supervisor.running,
            "async predicates or listeners run": not self._user_code.idle,
            "webhooks are being decided": not self.dispatcher.idle and not self.dispatcher.behind,
            "deliveries wait in the spill": self._spill is not None and self._spill.length and not self._spill.settled,
        }
        return ", ".join(what for what, is_so in awaited.items() if is_so)

    def drain_takes(self, timeout: float, rooms: float | None = None) -> float:
        """Return how many seconds a drain takes at the most, from its beginning to the end of the process."""
        return self._until_returned(timeout, rooms) + CLOSE_MARGIN

    def bound_drain(self, timeout: float, rooms: float | None = None) -> float:
        """Have the process ended if user code holds up a drain of `timeout` seconds past its grace; return by when."""
        deadline = boot_time() + self._until_returned(timeout, rooms)
        self._watchdog.set(DRAIN, deadline)
        return deadline

    def _until_returned(self, timeout: float, rooms: float | None) -> float:
        if self._supervisor is not None:
            timeout = max(timeout, (timeout if rooms is None else rooms) + self._settings.stop_grace)
        return timeout + DRAIN_MARGIN

    def end_now(self) -> float:
        """Have the process ended if user code does not let it end by itself at once; return by when."""
        deadline = boot_time() + END_MARGIN
        self._watchdog.set("the second signal", deadline)
        return deadline

    def observe(self, observer: Decided) -> None:
        """Have every decision told to a function, after its commit."""
        self._observers.append(observer)

    def observe_claims(self, observer: Claimed) -> None:
        """Have every room that is to get an assistant told to a function, with the webhook that fired."""
        self._claim_observers.append(observer)

    @property
    def spilled(self) -> int | None:
        return None if self._spill is None else self._spill.length

    def add(self, arrival: Arrival) -> Awaitable[Added]:
        return self.store.add(arrival) if self._spill is None else self._spill.add(arrival)

    @property
    def short(self) -> str:
        in_rooms = "" if self._supervisor is None else self._supervisor.short
        return self._user_code.short or self._decider.short or in_rooms

    async def takes_writes(self) -> bool:
        taking = self.store if self._spill is None else self._spill
        try:
            async with asyncio.timeout(PING_WITHIN):
                await taking.ping(time.time())
        except (StoreError, TimeoutError):
            return False
        return True

    def accepted(self, accepted: Accepted, added: Added, started: float) -> None:
        self._log.accepted()
        arrival, webhook = accepted.arrival, accepted.webhook
        if added.spilled or added.duplicate or webhook is None:
            reason, decision = _stored(arrival, added)
            delivery = Delivery(200, reason, arrival.type, arrival.room, arrival.id, decision=decision)
            delivery.seconds = time.monotonic() - started
            self._log.answered(delivery)
            if added.state is State.PENDING and not added.spilled and not self.dispatcher.knows(added.seq):
                self._backlog.read()
            return
        if self._supervisor is not None:
            self._supervisor.wake(arrival.room)
        received_at = arrival.received_at
        queued = PendingWebhook(added.seq, webhook, accepted.room, received_at, received_at, started)
        if not self.dispatcher.submit(queued):
            self._backlog.read()

    def answered(self, delivery: Delivery) -> None:
        self._log.answered(delivery)

    def _decided(self, queued: PendingWebhook, decision: Decision) -> None:
        for observer in self._observers:
            observer(queued, decision)

    async def _finish(self, timeout: float, rooms: float) -> None:
        # Side by side: the grace of assistants does not come on top of the time of listeners.
        await asyncio.gather(self._settle(time.monotonic() + timeout), self._empty_rooms(rooms))

    async def _empty_rooms(self, timeout: float) -> None:
        if self._supervisor is not None:
            await self._supervisor.drain(timeout)
            await self._supervisor.hand_over("the replica is draining")

    async def _settle(self, deadline: float) -> None:
        # What arrives while listeners are waited for is decided too, and its listeners get the same time.
        while (left := deadline - time.monotonic()) > 0:
            if self._spill is not None:
                await self._spill.settle(left)
            await self.dispatcher.drain(max(0.0, deadline - time.monotonic()))
            await self._user_code.drain(max(0.0, deadline - time.monotonic()))
            settled = self._spill is None or self._spill.settled
            if settled and self.dispatcher.idle and self._user_code.idle:
                return

    def _spilling(self, spill_file: SpillFile) -> Spill:
        return Spill(self.store, spill_file, join=self._join, held=lambda: self._fence.lease.held, moved=self._moved)

    def _moved(self) -> None:
        self.dispatcher.fall_behind()
        self._backlog.read()
        self._wake_supervisor()

    def _supervise(self, assistant: Assistant) -> Supervisor:
        settings = self._settings
        launch = launcher(
            assistant,
            grace=settings.stop_grace,
            deadline=lambda: self._fence.lease.deadline,
            life=lambda: self.store.life,
            hidden=(*settings.secret, settings.store),
        )
        return Supervisor(self.store, launch, settings.max_rooms, settings.max_age)

    def _claims(self, assistant: Assistant | None) -> Claim | None:
        if assistant is None or self._supervisor is None:
            return None
        return Claims(self.store, self._supervisor, bots=assistant.bots, claimed=self._claimed).claim

    def _claimed(self, room: RoomIdentity, webhook: Webhook) -> None:
        for observer in self._claim_observers:
            observer(room, webhook)

    def _regained(self) -> None:
        if self._spill is not None:
            self._spill.wake()
        self._backlog.read()
        self._wake_supervisor()

    def _wake(self) -> None:
        self._backlog.take_over()
        self._wake_supervisor()

    def _wake_supervisor(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wake()

    async def _drop_queue(self) -> None:
        await self.dispatcher.cancel()

    async def _prune(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                forgotten = await self.store.prune(time.time() - self._settings.retention)
                if forgotten:
                    logger.info("forgot %d webhooks older than the retention", forgotten)
            await asyncio.sleep(PRUNE_EVERY)


async def _kept_up(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop that must not end, and begin it again where an error ends it that nobody expected."""
    while True:
        try:
            await loop()
        except Exception as error:
            # Not its text, which may hold what was received.
            logger.error("an error of the trigger itself, %s: going on in %g s", type(error).__name__, BEGIN_AGAIN)
        await asyncio.sleep(BEGIN_AGAIN)


def _stored(arrival: Arrival, added: Added) -> tuple[str, str]:
    """Say how a delivery was stored that no decision follows now, and in which state."""
    if added.spilled:
        return "spilled: waits for the database", added.state
    return ("a duplicate: stored already", "") if added.duplicate else (arrival.reason, added.state)
