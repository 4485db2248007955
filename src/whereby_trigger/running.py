"""One run of a trigger: its stages wired to each other, opened in order and drained in order."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from whereby_trigger.config import Settings
from whereby_trigger.decide import Backlog, Decider, Dispatcher, Emitter, Predicates, Queued, UserCode
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.errors import StoreError
from whereby_trigger.receive import Accepted, Delivery
from whereby_trigger.store import Added, Arrival, Decision, State, Store

logger = logging.getLogger("whereby_trigger")

PRUNE_EVERY = 3600.0
PING_WITHIN = 2.0

Decided = Callable[[Queued, Decision], None]


class Running:
    """Receive, store and decide with one open store, until closed."""

    def __init__(
        self, settings: Settings, store: Store, predicates: Predicates, emitter: Emitter, user_code: UserCode
    ) -> None:
        self._settings = settings
        self._store = store
        self._user_code = user_code
        self._log = DeliveryLog()
        self._observers: list[Decided] = [self._log.decided]
        decider = Decider(store, predicates, emitter, user_code, max_age=settings.max_age, subdomain=settings.subdomain)
        self.dispatcher = Dispatcher(store, decider, self._decided)
        self._backlog = Backlog(store, self.dispatcher, settings.subdomain)
        self._loops: list[asyncio.Task[None]] = []
        self.draining = False

    async def open(self) -> None:
        """Open the store, and begin to decide what is pending in it."""
        await self._store.open(self._backlog.claim)
        self._loops = [
            asyncio.create_task(self._backlog.run(), name="whereby-trigger-backlog"),
            asyncio.create_task(self._prune(), name="whereby-trigger-prune"),
        ]

    async def drain(self, timeout: float, hurry: asyncio.Event) -> None:
        """Decide what is queued and wait for listeners, at most `timeout` seconds, or until told to hurry."""
        self.draining = True
        finish = asyncio.create_task(self._finish(timeout))
        hurried = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait({finish, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (finish, hurried):
                task.cancel()
            await asyncio.gather(finish, hurried, return_exceptions=True)

    async def close(self, within: float) -> None:
        """Stop deciding after `within` seconds and close the store; what is pending there waits for the next start."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.dispatcher.drain(within)
        await self.dispatcher.cancel()
        await self._user_code.drain(0)
        self._user_code.close()
        await self._store.close()

    def observe(self, observer: Decided) -> None:
        """Have every decision told to a function, after its commit."""
        self._observers.append(observer)

    def add(self, arrival: Arrival) -> Awaitable[Added]:
        return self._store.add(arrival)

    async def takes_writes(self) -> bool:
        try:
            async with asyncio.timeout(PING_WITHIN):
                await self._store.ping(time.time())
        except (StoreError, TimeoutError):
            return False
        return True

    def accepted(self, accepted: Accepted, added: Added, started: float) -> None:
        self._log.accepted()
        arrival, webhook = accepted.arrival, accepted.webhook
        if added.duplicate or webhook is None:
            reason, decision = ("a duplicate: stored already", "") if added.duplicate else (arrival.reason, added.state)
            delivery = Delivery(200, reason, arrival.type, arrival.room, arrival.id, decision=decision)
            delivery.seconds = time.monotonic() - started
            self._log.answered(delivery)
            if added.state is State.PENDING and not self.dispatcher.knows(added.seq):
                self._backlog.read()
            return
        received_at = arrival.received_at
        queued = Queued(added.seq, webhook, accepted.room, received_at, received_at, started)
        if not self.dispatcher.submit(queued):
            self._backlog.read()

    def answered(self, delivery: Delivery) -> None:
        self._log.answered(delivery)

    def _decided(self, queued: Queued, decision: Decision) -> None:
        for observer in self._observers:
            observer(queued, decision)

    async def _finish(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        await self._backlog.looked(timeout)
        # What arrives while listeners are waited for is decided too, and its listeners get the same time.
        while (left := deadline - time.monotonic()) > 0:
            await self.dispatcher.drain(left)
            await self._user_code.drain(max(0.0, deadline - time.monotonic()))
            if self.dispatcher.idle and self._user_code.idle:
                return

    async def _prune(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                forgotten = await self._store.prune(time.time() - self._settings.retention)
                if forgotten:
                    logger.info("forgot %d webhooks older than the retention", forgotten)
            await asyncio.sleep(PRUNE_EVERY)
