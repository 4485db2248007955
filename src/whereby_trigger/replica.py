"""One run of a trigger: builds its stages, opens them, drains them in order, and closes them."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from operator import attrgetter

from whereby_trigger import leftovers
from whereby_trigger.assist import Assistant, Claims, NoClaims, Supervisor, launch_nothing, launcher
from whereby_trigger.clock import MACHINE, Clock, boot_time
from whereby_trigger.config import Settings
from whereby_trigger.decide import (
    Announcer,
    Backlog,
    Decider,
    Dispatcher,
    Emitter,
    Holds,
    HoldWatch,
    Predicates,
    UserCode,
    page_for,
)
from whereby_trigger.deliveries import DeliveryLog, Refusals
from whereby_trigger.errors import StoreError
from whereby_trigger.fence import Fence
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Counts, Readings
from whereby_trigger.process import AT_LEAST, LATE, Watchdog
from whereby_trigger.receive import Endpoint, InFlightLimit, Readiness, Receiver, Rules, follow_secret
from whereby_trigger.store import UNBOUNDED, Store, Unread, remove_bodies
from whereby_trigger.store.spill import SpillStore
from whereby_trigger.store.spill_file import SpillFile

logger = own_logger("whereby_trigger")

PRUNE_EVERY = 3600.0

LOOK_EVERY = 1.0
"""Seconds between looks for rooms that wait for an assistant that does not start here."""

BEGIN_AGAIN = 1.0
"""Seconds until a loop of the replica that failed is started again."""

DRAIN, CLOSING = "the drain", "the end, which the store held up"
"""The watchdog's deadlines, by the names that its last words give them."""

DRAIN_MARGIN = 5.0
"""Seconds that cancelled user code has to return, after a drain and the grace of its assistants."""

LAST_EVENTS = 0.5
"""Seconds that listeners get, at least, to hear what became of the last assistants."""

CLOSE_MARGIN = 5.0
"""Seconds that the store then has to close."""

END_MARGIN = 2.0
"""Seconds that the process has to end after a second signal."""


class Replica:
    """Receive, store and decide with one store, from `open` to `close`; deliveries come in by the `endpoint`.

    Each stage is given the next one, which it calls: endpoint → receiver → dispatcher → decider → claims → supervisor.
    All but the endpoint are given the store, too. Without `starts_assistants`, a room that asks for one waits until its
    session ends, or nobody has been there for as long as its assistant would have stayed. What comes due does so by
    `clock`; the lease and the drain go by the machine's clock.
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
        clock: Clock = MACHINE,
        counts: Counts | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self.store = store
        self._user_code = user_code
        self._watchdog = watchdog or Watchdog()
        # When the drain must be over, by the boot clock.
        self._drained_by = 0.0
        self._unread = unread = Unread()
        # What the stages use: the store, or a spill in front of it.
        self._taking: Store = store if spill_file is None else SpillStore(store, spill_file, unread, settings.redact)
        self._starts_assistants = starts_assistants and assistant is not None
        # Only assistants get a grace in a drain.
        self._grace = 0.0 if assistant is None else settings.stop_grace
        counts = counts or Counts()
        self.bounds = UNBOUNDED if assistant is None else assistant.bounds
        self._announcer = Announcer(emitter, user_code, settings.max_rooms)
        self._supervisor, self.claims = _assisting(settings, self._taking, assistant, self._announcer, counts, clock)
        self.holds = Holds(clock)
        self._decider = Decider(
            self._taking,
            predicates,
            emitter,
            user_code,
            self.claims,
            max_age=settings.max_age,
            subdomain=settings.subdomain,
            clock=clock,
            redact=settings.redact,
        )
        self.refusals = Refusals()
        replica = partial(attrgetter("replica"), store)
        log = DeliveryLog(signed=settings.signed, counts=counts, refusals=self.refusals, replica=replica)
        self.dispatcher = Dispatcher(self._taking, self._supervisor, self._decider, log, unread, self.holds)
        page = page_for(settings.max_body)
        self.hold_watch = HoldWatch(
            self._taking, self.holds, self.dispatcher.requeue, unread, subdomain=settings.subdomain, page=page
        )
        self._backlog = Backlog(
            self._taking,
            self._supervisor,
            self.dispatcher,
            unread,
            max_age=settings.max_age,
            subdomain=settings.subdomain,
            clock=clock,
            redact=settings.redact,
            page=page,
        )
        self._fence = Fence(self._taking, self._supervisor, self.dispatcher, unread, self._watchdog)
        self.readiness = Readiness(self._taking, user_code, self._decider, self._supervisor)
        presence = assistant is not None or predicates.use_presence
        rules = Rules(
            settings.secret, settings.allow_unsigned, settings.tolerance, settings.subdomain, presence, settings.redact
        )
        in_flight = InFlightLimit()
        self._receiver = receiver = Receiver(self._taking, self.dispatcher, log, rules, in_flight, clock)
        self.endpoint = Endpoint(
            receiver, in_flight, self.readiness, log, path=settings.path, max_body=settings.max_body
        )
        self._loops: list[asyncio.Task[None]] = []
        self._looking: list[asyncio.Task[None]] = []
        """Those of the loops that look for what is due, and wait by the clock in between."""

    async def open(self) -> None:
        """Open the store, and begin to decide what is pending in it.

        With a spill, the store may be unavailable: deciding begins once it is back. Raises StoreError if the store, or
        the spill, cannot be used.
        """
        try:
            # Now, because at the end, when it is needed, the system may have no thread left for it.
            self._watchdog.start()
            await self._taking.open(self._look)
        except BaseException:
            self._watchdog.close()
            raise
        # `going_on` expects it first. If the event loop's task factory is eager, `_begin` has already added the others.
        self._loops.insert(0, asyncio.create_task(self._begin()))
        if (file := self._settings.secret_file) is not None:
            follow = partial(follow_secret, file, self._receiver)
            self._loops.append(asyncio.create_task(_kept_up(follow)))

    async def _begin(self) -> None:
        lease = self._taking.lease
        if not lease.begun.is_set():
            self.dispatcher.cannot_read()
            await lease.begun.wait()
        self._fence.begin()
        self.dispatcher.fall_behind()
        looking = [self._backlog.run, self.hold_watch.run, self._prune]
        others = [self._fence.keep, self._store_refusals]
        if self._starts_assistants:
            looking.append(self._supervisor.supervise)
            others += [self._announcer.run, leftovers.keep_clean]
        elif self.bounds != UNBOUNDED:
            looking.append(self._end_waiting)
        self._looking += [asyncio.create_task(_kept_up(loop)) for loop in looking]
        self._loops += self._looking + [asyncio.create_task(_kept_up(loop)) for loop in others]

    async def drain(self, timeout: float, hurry: asyncio.Event, *, rooms: float | None = None) -> None:
        """Start no more assistants, and wait until what runs and is queued is over, or until `hurry` is set.

        Webhooks and listeners have at most `timeout` seconds. Assistants that still run after `rooms` seconds, or after
        `timeout` if that is None, are told to leave, and have `stop_grace` to return.
        """
        self.readiness.draining = True
        finish = asyncio.create_task(self._finish(timeout, timeout if rooms is None else rooms))
        hurried = asyncio.create_task(hurry.wait())
        try:
            await asyncio.wait({finish, hurried}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (finish, hurried):
                task.cancel()
            await asyncio.gather(finish, hurried, return_exceptions=True)

    async def close(self, within: float) -> None:
        """Cancel assistants, decide for at most `within` seconds more, and close the store.

        What is pending in it waits for the next start.
        """
        await self._supervisor.cut_off("the replica has stopped")
        await self.dispatcher.drain(within)
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self.dispatcher.cancel()
        await self._user_code.drain(0)
        self._user_code.close()
        # From here on only a disk or a database can hang, not user code. They have CLOSE_MARGIN, but not beyond the end
        # that `drain_takes` promised, LATE included.
        if self._watchdog.clear(DRAIN):
            now = boot_time()
            self._watchdog.set(CLOSING, max(now + AT_LEAST, min(now, self._drained_by - LATE) + CLOSE_MARGIN))
        self.refusals.store_last(self._taking)
        await self._taking.close()
        self._watchdog.close()

    def let_go(self) -> None:
        """Cancel the loops without waiting for them, also if closing the replica was cancelled."""
        for task in self._loops:
            task.cancel()

    @property
    def readings(self) -> Readings:
        """What metrics show of this replica now."""
        return Readings(
            slots_used=self._supervisor.runs,
            slots_free=self._supervisor.free,
            lease_seconds=max(0.0, self._taking.lease.deadline - boot_time()),
            spilled=self._taking.spilled or 0,
            draining=self.readiness.draining,
        )

    @property
    def awaited(self) -> str:
        """What a drain that began now would wait for, in words; "" if that is nothing."""
        runs = self._supervisor.runs
        assistants = "1 assistant is in its room" if runs == 1 else f"{runs} assistants are in their rooms"
        awaited = {
            assistants: runs > 0,
            "async predicates or listeners run": not self._user_code.idle,
            "webhooks are being decided": not self.dispatcher.idle and not self.dispatcher.behind,
            "deliveries wait in the spill": self._taking.spilled and not self._taking.settled,
        }
        return ", ".join(what for what, is_so in awaited.items() if is_so)

    @property
    def assistants(self) -> int:
        """How many assistants are in their rooms."""
        return self._supervisor.runs

    @property
    def leaving(self) -> bool:
        """True if assistants that were told to leave are still in their rooms."""
        return self._supervisor.leaving

    def going_on(self, resting: Callable[["asyncio.Task[None]"], bool]) -> str:
        """Return in words what goes on now and will soon be over on its own; "" if that is nothing.

        A task that is `resting` waits until a later time, and does not count. `lasts` says what may go on for longer.
        """
        going_on = {
            "the store is being opened": not all(task.done() for task in self._loops[:1]),
            "what is due is looked for": not all(map(resting, self._looking)),
            "webhooks are being decided": self.dispatcher.behind or self.dispatcher.deciding(resting),
            "assistants start or have just ended": self._starts_assistants and self._supervisor.starting,
            "listeners of assistants' events are called": not self._announcer.idle,
        }
        return ", ".join(what for what, is_so in going_on.items() if is_so)

    def lasts(self) -> str:
        """Return in words what goes on for as long as user code likes; "" if that is nothing."""
        lasts = {
            "webhooks wait for their predicates to be asked again": not self.dispatcher.idle,
            "async listeners run": not self._user_code.idle,
            "assistants that were told to leave are in their rooms": self.leaving,
        }
        return ", ".join(what for what, is_so in lasts.items() if is_so)

    def drain_takes(self, timeout: float, rooms: float | None = None) -> float:
        """Return how many seconds a drain takes at most, from its beginning to the end of the process."""
        return self._until_returned(timeout, rooms) + CLOSE_MARGIN

    def bound_drain(self, timeout: float, rooms: float | None = None) -> float:
        """Set a deadline for a drain, at which the process ends whatever user code does; return it (boot clock)."""
        deadline = self._drained_by = boot_time() + self._until_returned(timeout, rooms)
        self._watchdog.set(DRAIN, deadline)
        return deadline

    def drain_within(self, seconds: float) -> tuple[float, float]:
        """Return the `timeout` and the `rooms` of a drain that takes at most some seconds, as far as its grace allows.

        These are bounds: the setting may be less.
        """
        timeout = max(0.0, seconds - DRAIN_MARGIN - CLOSE_MARGIN)
        return timeout, max(0.0, timeout - self._grace)

    def _until_returned(self, timeout: float, rooms: float | None) -> float:
        return max(timeout, (timeout if rooms is None else rooms) + self._grace) + DRAIN_MARGIN

    def end_now(self) -> float:
        """Set a deadline in END_MARGIN seconds, at which the process ends in any case; return it (boot clock)."""
        deadline = boot_time() + END_MARGIN
        self._watchdog.set("the second signal", deadline)
        return deadline

    async def _finish(self, timeout: float, rooms: float) -> None:
        # Both at once: the grace of assistants and the time of listeners do not add up.
        deadline, told = time.monotonic() + timeout, self._announcer.told
        await asyncio.gather(self._settle(deadline), self._empty_rooms(rooms))
        await self._tell_last(max(deadline, time.monotonic() + LAST_EVENTS), told)

    async def _empty_rooms(self, timeout: float) -> None:
        await self._supervisor.drain(timeout)
        await self._supervisor.hand_over("the replica is draining")

    async def _tell_last(self, deadline: float, told: int) -> None:
        """Wait until listeners have heard what became of the last assistants; `told` events were told before."""
        await self._supervisor.settle(LAST_EVENTS)
        await self._announcer.drain(max(0.0, deadline - time.monotonic()))
        # If there was no new event, async listeners have had their time in `_settle`.
        if self._announcer.told > told:
            await self._user_code.drain(max(0.0, deadline - time.monotonic()))

    async def _settle(self, deadline: float) -> None:
        # Again and again: what arrives while we wait for listeners must be decided, and its listeners waited for.
        while (left := deadline - time.monotonic()) > 0:
            await self._taking.settle(left)
            await self.dispatcher.drain(max(0.0, deadline - time.monotonic()))
            await self._user_code.drain(max(0.0, deadline - time.monotonic()))
            if self._taking.settled and self.dispatcher.idle and self._user_code.idle:
                return

    def _look(self) -> None:
        """Make every stage look at the store now: another process has written to it."""
        self._backlog.take_over()
        self.holds.other_replicas_wrote()
        self._supervisor.wake()

    async def _store_refusals(self) -> None:
        await self.refusals.keep(self._taking)

    async def _end_waiting(self) -> None:
        """End rooms that wait for an assistant that does not start here, when it would have left an empty room."""
        while True:
            with contextlib.suppress(StoreError):
                await self._taking.end_waiting(self.bounds)
            await self._clock.poll(asyncio.Event(), LOOK_EVERY)

    async def _prune(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                forgotten = await self._taking.prune(self._clock.wall() - self._settings.retention)
                if forgotten:
                    logger.info("forgot %d webhooks older than the retention", forgotten)
                if (kept := self._settings.body_retention) is not None:
                    await remove_bodies(self._taking, self._clock.wall() - kept)
                await self._taking.wipe(rewrite=False)
            await self._clock.sleep(PRUNE_EVERY)


async def _kept_up(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop that must not end, and start it again if an unexpected error ends it."""
    while True:
        try:
            await loop()
        except Exception as error:
            # Without the error's text, which may hold parts of a delivery.
            logger.error("an error of the trigger itself, %s: going on in %g s", type(error).__name__, BEGIN_AGAIN)
        await asyncio.sleep(BEGIN_AGAIN)


def _assisting(
    settings: Settings,
    store: Store,
    assistant: Assistant | None,
    announcer: Announcer,
    counts: Counts,
    clock: Clock,
) -> tuple[Supervisor, Claims]:
    if assistant is None:
        supervisor = Supervisor(store, launch_nothing, 0)
        return supervisor, NoClaims(store, supervisor, bots=False)
    launch = launcher(
        assistant,
        grace=settings.stop_grace,
        deadline=lambda: store.lease.deadline,
        notice=store.lease.guard_notice,
        life=lambda: store.life,
        hidden=(*settings.secret, settings.store, settings.inspector_token or ""),
        clock=clock,
    )
    supervisor = Supervisor(
        store,
        launch,
        settings.max_rooms,
        settings.max_age,
        assistant.bounds,
        announcer.announce,
        counts,
        clock,
        settings.redact,
    )
    return supervisor, Claims(store, supervisor, bots=assistant.bots)
