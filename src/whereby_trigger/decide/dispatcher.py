"""The dispatcher: decides a room's webhooks one at a time, in order of arrival, and different rooms concurrently.

Webhooks without a room have no order. A held webhook that is asked again takes turns with those that arrive in its
room. The backlog queues what is pending in the store and not queued here.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import takewhile

from msgspec import Struct, field

from whereby_trigger.assist import Supervisor
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.decide.decider import Decider
from whereby_trigger.decide.pending import Holds, OnHold, PendingWebhook, from_store
from whereby_trigger.deliveries import DeliveryLog
from whereby_trigger.errors import DecodeError, StoreError
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import Decision, Pending, State, Store, Unread
from whereby_trigger.webhook import RoomClientJoined, RoomClientLeft, redacted

logger = own_logger("whereby_trigger.decide")

MAX_QUEUED = 10_000
MAX_BYTES = 64 * 1024 * 1024

ANSWERED_WITHIN = 15.0
"""Seconds after which the store's answer to a call counts as lost, so nothing is queued because of it.

A webhook is committed before its call is answered, and may be read back, decided and forgotten in between.
"""


class RoomQueue(Struct, eq=False):
    """Hold the webhooks of a room that wait for their turn: new ones in order of arrival, and held ones to ask again.

    The two kinds alternate: neither many holds nor many arrivals keep the other kind waiting. `was_new` is True if the
    webhook that is being decided is a new one. `task` decides that one and then these; it is kept here because the
    event loop itself refers to tasks only weakly.
    """

    was_new: bool = False
    task: asyncio.Task[None] | None = None
    new: deque[PendingWebhook] = field(default_factory=deque)
    again: deque[PendingWebhook] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.new) + len(self.again)

    def append(self, queued: PendingWebhook) -> None:
        (self.new if queued.due is None else self.again).append(queued)

    def pop(self) -> PendingWebhook:
        """Remove and return the webhook whose turn it is: of the other kind than the last, if there is one."""
        self.was_new = bool(self.new) and not (self.was_new and self.again)
        return (self.new if self.was_new else self.again).popleft()


class Dispatcher:
    """Queue stored webhooks and have them decided.

    A webhook that does not fit in memory is left in the store. From then on no arrival is queued until the backlog has
    been read: otherwise a webhook could overtake an older one of its room.
    """

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        decider: Decider,
        log: DeliveryLog,
        unread: Unread,
        holds: Holds,
    ) -> None:
        self._store = store
        self._supervisor = supervisor
        self._decider = decider
        self._log = log
        self._unread = unread
        self._holds = holds
        self._observers: list[Callable[[Decision], None]] = []
        self._rooms: dict[str, RoomQueue] = {}
        # The size of each webhook that is queued, being decided or committed, by its seq; and their sum.
        self._known: dict[int, int] = {}
        self._bytes = 0
        # A page of the backlog may show as pending what was decided since; None while nothing is read.
        self._settled_while_reading: set[int] | None = None
        # When the backlog queued a webhook, by time.monotonic(); the key is its number, and whether its hold had not
        # begun. `submit` or `requeue` may come later, with the same one.
        self._read_back: dict[tuple[int, bool], float] = {}
        self._maybe_idle = asyncio.Event()
        self._roomless: set[asyncio.Task[None]] = set()

    @property
    def has_room(self) -> bool:
        """True if the backlog may be read now: if it has webhooks left, only once half of the memory is free."""
        return not self._unread.behind or (len(self._known) <= MAX_QUEUED // 2 and self._bytes <= MAX_BYTES // 2)

    @property
    def behind(self) -> bool:
        """True if webhooks in the store may be older than those queued here: see `Unread`."""
        return self._unread.behind

    @property
    def idle(self) -> bool:
        """True if nothing is queued or being decided, and nothing is left in a store that can be read."""
        return not self._known and not self._unread.awaited

    def deciding(self, resting: Callable[["asyncio.Task[None]"], bool]) -> bool:
        """Return True if a webhook is being decided or committed, unless its task is `resting` until a later time."""
        tasks = self._tasks
        # One in each task, and those that wait in the queues. What is known beyond these is being committed.
        undecided = len(tasks) + sum(len(queue) for queue in self._rooms.values())
        return len(self._known) > undecided or not all(resting(task) for task in tasks)

    @property
    def _tasks(self) -> list["asyncio.Task[None]"]:
        return [*self._roomless, *(queue.task for queue in self._rooms.values() if queue.task is not None)]

    def knows(self, seq: int) -> bool:
        """Return True if a webhook is queued, being decided or being committed on this replica."""
        return seq in self._known

    def observe(self, observer: Callable[[Decision], None]) -> None:
        """Call a function with every decision after its commit; when a webhook is first held, that counts as one."""
        self._observers.append(observer)

    def find(self, seq: int) -> None:
        """Read the backlog now if a webhook that is pending in the store is not queued here."""
        if seq not in self._known:
            self._unread.look()

    def submit(self, queued: PendingWebhook) -> None:
        """Queue a webhook that was just stored, unless the backlog has already read it from the store.

        If it does not fit in memory, it is left in the store, and the backlog must be read before the next is queued.
        """
        if self._supervisor.by_room and queued.room is not None:
            self._supervisor.wake(queued.room.key)
        if self._holds.by_room:
            self._tell_holds(queued)
        self.requeue(queued)

    def requeue(self, queued: PendingWebhook) -> None:
        """Queue a webhook that is pending again because its hold is due, or the presence in its room has changed.

        If it does not fit in memory, it is left in the store, like any other.
        """
        if queued.seq in self._known or (queued.seq, queued.due is None) in self._read_back:
            return
        if queued.owner != self._store.replica:
            # Stored under a lease that is lost. It is taken over before what arrives since is decided.
            self.fall_behind()
            self._unread.look()
        elif self._unread.behind:
            self.fall_behind()
        elif not self._queue(queued):
            self.fall_behind()
            self._unread.look()

    def fall_behind(self) -> None:
        """Note that webhooks in the store are not queued; they may be older than what arrives."""
        self._unread.fall_behind()

    def begin_reading(self) -> None:
        """Note that the backlog is about to be read; from now on, keep track of what is decided meanwhile."""
        self._settled_while_reading = set()
        oldest = time.monotonic() - ANSWERED_WITHIN
        # Found in one pass: a search for the first of a dict also passes over all that was deleted before it.
        for old in list(takewhile(lambda read: self._read_back[read] < oldest, self._read_back)):
            del self._read_back[old]
        self._unread.begin_reading()

    def resubmit(self, queued: PendingWebhook) -> bool:
        """Queue a webhook that was read from the backlog; return False if it does not fit in memory."""
        if queued.seq in self._known or queued.seq in (self._settled_while_reading or ()):
            return True
        if self._holds.by_room:
            self._tell_holds(queued)
        if not self._queue(queued):
            self.fall_behind()
            return False
        self._read_back[queued.seq, queued.due is None] = time.monotonic()
        return True

    def end_reading(self, *, complete: bool) -> bool:
        """Note that the backlog was read, to its end or not; return True if nothing is left there."""
        self._settled_while_reading = None
        self._unread.end_reading(complete=complete)
        self._note_idleness()
        return not self._unread.behind

    def cannot_read(self) -> None:
        """Note that the backlog cannot be read now: a drain does not wait for it, and the next start decides it."""
        self._unread.cannot_read()
        self._note_idleness()

    async def drain(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until everything is decided and committed; return True if it is.

        This includes what is left in the store, if that can be read.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self.idle:
                    self._maybe_idle.clear()
                    await self._maybe_idle.wait()
        except TimeoutError:
            return False
        return True

    async def cancel(self) -> None:
        """Stop deciding: what is queued, and what is stored from now on, is pending until the backlog is read again."""
        self.fall_behind()
        self._holds.clear()
        self._decider.forget_losses(self._known)
        tasks = self._tasks
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # A task that was cancelled before its first step has forgotten nothing: it never ran.
        self._rooms.clear()
        for seq in list(self._known):
            self._forget(seq)

    def _tell_holds(self, queued: PendingWebhook) -> None:
        if queued.room is not None and isinstance(queued.webhook, RoomClientJoined | RoomClientLeft):
            self._holds.presence_changed(queued.room.key)

    def _queue(self, queued: PendingWebhook) -> bool:
        """Queue a webhook in its room; return False if it does not fit in memory."""
        if len(self._known) >= MAX_QUEUED or self._bytes >= MAX_BYTES:
            return False
        self._known[queued.seq] = size = len(queued.webhook.raw)
        self._bytes += size
        loop = asyncio.get_running_loop()
        if queued.room is None:
            # Without a room, it waits for no other webhook.
            task = loop.create_task(self._decide(queued))
            self._roomless.add(task)
            task.add_done_callback(self._roomless.discard)
        elif queued.room.key in self._rooms:
            self._rooms[queued.room.key].append(queued)
        else:
            queue = self._rooms[queued.room.key] = RoomQueue(was_new=queued.due is None)
            queue.task = loop.create_task(self._decide_in_order(queued.room.key, queued, queue))
        return True

    async def _decide_in_order(self, room: str, first: PendingWebhook, queue: RoomQueue) -> None:
        try:
            await self._decide(first)
            while queue:
                # Deciding may never wait. Other rooms, and deliveries, must get their turn all the same.
                await asyncio.sleep(0)
                await self._decide(queue.pop())
        finally:
            # Not if it was cancelled, and another is there.
            if self._rooms.get(room) is queue:
                del self._rooms[room]
            # So no error holds its task in a cycle: asyncio says at once, not at some collection, that none saw it.
            queue.task = None
            while queue:
                self._forget(queue.pop().seq)

    async def _decide(self, queued: PendingWebhook) -> None:
        try:
            self._commit(queued, await self._decider.decide(queued))
        except (StoreError, MemoryError) as error:
            why = str(error) or "out of memory"
            logger.warning("webhook %s stays pending: %s", queued.webhook.id, why, extra=self._fields(queued))
            self._forget(queued.seq)
        except BaseException:
            self._forget(queued.seq)
            raise

    def _commit(self, queued: PendingWebhook, outcome: Decision | OnHold | None) -> None:
        if outcome is None:
            # It is no longer this replica's to decide.
            self._forget(queued.seq)
            return
        store = self._store
        storing = store.hold(outcome.holding) if isinstance(outcome, OnHold) else store.decide(outcome)
        storing.add_done_callback(partial(self._committed, queued, outcome))

    def _committed(self, queued: PendingWebhook, outcome: Decision | OnHold, commit: "asyncio.Future[bool]") -> None:
        self._forget(queued.seq)
        if commit.cancelled():
            return
        error = commit.exception()
        if error is not None:
            fields = self._fields(queued)
            logger.warning("the decision on webhook %s was not stored: %s", queued.webhook.id, error, extra=fields)
        elif not commit.result():
            # Meanwhile it was decided or taken over elsewhere.
            return
        elif isinstance(outcome, Decision):
            self._tell(queued, outcome)
        else:
            # When it is asked again, `requeue` must not take it for one that the backlog has queued already.
            self._read_back.pop((queued.seq, False), None)
            self._holds.add(outcome.as_held(queued, self._holds.now()))
            if queued.due is None:
                self._tell(queued, outcome.as_decision(self._holds.clock.wall()))

    def _tell(self, queued: PendingWebhook, decision: Decision) -> None:
        queued_at = queued.queued_at if queued.due is None else None
        self._log.decided(queued.webhook, queued.room, queued_at, queued.started, decision)
        for observer in self._observers:
            observer(decision)

    def _fields(self, queued: PendingWebhook) -> dict[str, object]:
        return queued.log_fields(self._store.replica)

    def _forget(self, seq: int) -> None:
        self._bytes -= self._known.pop(seq, 0)
        if self._settled_while_reading is not None:
            self._settled_while_reading.add(seq)
        self._note_idleness()

    def _note_idleness(self) -> None:
        if not self._known and self.idle:
            self._maybe_idle.set()


REREAD = 5.0
"""Seconds between looks for pending webhooks of this replica that are not queued."""

TAKEOVER = 0.5
"""Seconds between looks for webhooks whose replica is dead: nothing wakes us when a replica dies."""

MAKE_ROOM = 0.05
"""Seconds between attempts to read the rest of the backlog, while not all of it fits in memory."""

REST = 10.0
LONGEST_REST = 0.5
"""How many times as long as a read of the backlog took, a read that is asked for waits; and how many seconds at most.

Each read is of all that is pending, and each duplicate that another replica has stored asks for one.
"""

PAGE = 500

PAGE_BYTES = 128 * 1024 * 1024
"""Bytes that the bodies of one page may have: what is read at once must fit in memory, and arrive in time."""


def page_for(max_body: int) -> int:
    """Return how many webhooks may be read at once, if each body may have `max_body` bytes."""
    return max(1, min(PAGE, PAGE_BYTES // max_body))


class Backlog:
    """Take over webhooks that have no live replica, and queue what is pending for this replica and not queued.

    It is read from the store a `page` of webhooks at a time.
    """

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        dispatcher: Dispatcher,
        unread: Unread,
        *,
        max_age: float,
        subdomain: str | None = None,
        clock: Clock = MACHINE,
        redact: tuple[str, ...] = (),
        page: int = PAGE,
    ) -> None:
        self._redact = redact
        self._page = page
        self._clock = clock
        self._store = store
        self._supervisor = supervisor
        self._dispatcher = dispatcher
        self._unread = unread
        self._max_age = max_age
        self._subdomain = subdomain
        # When to take over next, the replica's id at the last time, and when to read the store next.
        self._claim_at = 0.0
        self._claimed_as = ""
        self._read_at = 0.0
        # By time.monotonic().
        self._rested_at = 0.0

    def take_over(self) -> None:
        """Look now for something to take over."""
        self._claim_at = 0.0
        self._unread.woken.set()

    async def run(self) -> None:
        """Look at once, when told to, and every few seconds, until cancelled."""
        while True:
            self._unread.woken.clear()
            try:
                await self._look()
            except StoreError as error:
                fields = {"replica": self._store.replica}
                logger.warning("cannot read pending webhooks from the store; will retry: %s", error, extra=fields)
                self._dispatcher.cannot_read()
                # Something may have been taken over by a call whose answer was lost.
                self._unread.due = True
                self._claim_at, clock, pause = 0.0, self._clock, TAKEOVER
            else:
                clock, pause = self._clock, MAKE_ROOM if self._dispatcher.behind else TAKEOVER
                if self._unread.due:
                    clock, pause = MACHINE, max(0.0, self._rested_at - time.monotonic())
            await clock.poll(self._unread.woken, pause)

    async def _look(self) -> None:
        now = self._clock.boot()
        # A new id means that the lease was lost. What the old id had is older than what arrives now, and may be stored
        # late, so it goes first.
        to_be_read = self._unread.behind and self._dispatcher.has_room
        if to_be_read or now >= self._claim_at or self._claimed_as != self._store.replica:
            self._claim_at, self._claimed_as = now + TAKEOVER, self._store.replica
            if await self._store.take_over(self._max_age):
                self._dispatcher.fall_behind()
                self._supervisor.wake()
        if self._claimed_as != self._store.replica:
            # The lease was lost meanwhile: nothing was taken over.
            return
        began = time.monotonic()
        if self._unread.behind or (self._unread.due and began >= self._rested_at) or now >= self._read_at:
            self._unread.due, self._read_at = False, now + REREAD
            await self._read()
            self._rested_at = time.monotonic() + min(LONGEST_REST, REST * (time.monotonic() - began))

    async def _read(self) -> None:
        if not self._dispatcher.has_room:
            return
        self._dispatcher.begin_reading()
        complete, after = False, 0
        try:
            while True:
                rows = await self._store.pending(after, self._page)
                if not await self._queue_each(rows):
                    break
                if len(rows) < self._page:
                    complete = True
                    break
                after = rows[-1].seq
        finally:
            self._dispatcher.end_reading(complete=complete)

    async def _queue_each(self, rows: list[Pending]) -> bool:
        for row in rows:
            if not await self._queue(row):
                return False
        return True

    async def _queue(self, row: Pending) -> bool:
        if self._dispatcher.knows(row.seq):
            return True
        try:
            return self._dispatcher.resubmit(from_store(row, self._subdomain, self._clock.boot()))
        except DecodeError as error:
            reason = str(error)
            body = redacted(row.body, self._redact) if self._redact else None
            at = self._clock.wall()
            await self._store.decide(Decision(row.seq, row.id, State.QUARANTINED, reason, 0, at, body=body))
            return True
