"""Webhooks on their way to a decision: pending ones, suspects of ending the process, and held ones.

A predicate with a hold that says True is asked again on each change of the room's presence, and when the hold is due.
The store knows both as well: what is here is lost with the process, and then another replica asks again.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from math import inf
from typing import Final

from msgspec import Struct, structs

from whereby_trigger.clock import LONGEST_WAIT, MACHINE, Clock
from whereby_trigger.deliveries import session_id
from whereby_trigger.errors import StoreBusy, StoreError
from whereby_trigger.store import UNKNOWN, Decision, Holding, Pending, Presence, State, Store, Unread
from whereby_trigger.store.presence import RoomCounts
from whereby_trigger.webhook import RoomIdentity, Webhook, decode, room_of


class PendingWebhook(Struct, frozen=True, eq=False):
    """Describe a stored webhook that waits for its decision. `started` is when we got it, by time.monotonic().

    `owner` is the replica that it was stored or read for: after a lost lease this process is another one. `attempts`,
    `takeovers` and `crashes` are as in the store's `Pending`.
    If its hold has begun, it did so at `held_since` and is due at `due`, both by the boot clock; else they are None.
    `effect` is what it did to its room's assistant when it was stored, in words, and `counts` who was in its room then,
    if it came with a count. We learned of its commit at `stored_at`, by the boot clock; 0 if it was read back.
    """

    seq: int
    owner: str
    webhook: Webhook
    room: RoomIdentity | None
    received_at: float
    queued_at: float
    started: float
    attempts: int = 0
    takeovers: int = 0
    crashes: int = 0
    held_since: float | None = None
    due: float | None = None
    effect: str = ""
    counts: RoomCounts | None = None
    stored_at: float = 0.0

    @property
    def attempt(self) -> int:
        """Which attempt at a decision this is: 1, and one more for each replica that died before."""
        return self.takeovers + 1

    def log_fields(self, replica: str) -> dict[str, object]:
        """Return the fields of a log line about it."""
        fields: dict[str, object] = {"webhook_id": self.webhook.id, "replica": replica}
        about = {"room": None if self.room is None else self.room.key, "session_id": session_id(self.webhook)}
        return fields | {name: value for name, value in about.items() if value is not None}


def from_store(row: Pending, subdomain: str | None, now: float) -> PendingWebhook:
    """Decode a webhook that was read back at `now`; raises DecodeError where this program cannot."""
    webhook = decode(row.body)
    held_since = due = None
    if row.held_for is not None and row.due_in is not None:
        # If it was held in the future, the store's clock was set back: at most the whole hold is left.
        held_since = now - max(row.held_for, 0.0)
        due = held_since + row.held_for + row.due_in
    return PendingWebhook(
        seq=row.seq,
        owner=row.owner,
        webhook=webhook,
        room=room_of(webhook, subdomain),
        received_at=row.received_at,
        queued_at=row.queued_at,
        started=time.monotonic(),
        attempts=row.attempts,
        takeovers=row.takeovers,
        crashes=row.crashes,
        held_since=held_since,
        due=due,
        effect=row.effect,
    )


class PoisonIsolation:
    """Give each suspect a turn of its own, those that were blamed the least before the others.

    So a webhook that ends the process does so when the innocent ones that could go before it are decided, and kills
    from outside hit a different one each time.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._taken = False

    @asynccontextmanager
    async def alone(self, queued: PendingWebhook) -> AsyncIterator[None]:
        """Wait for a webhook's turn; it lasts as long as an `async with` block."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        heapq.heappush(self._waiting, (queued.attempts, queued.seq, turn))
        # Not at once: those that were queued together come one after the other.
        loop.call_soon(self._admit)
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._taken = False
                self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._taken:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._taken = True
                turn.set_result(None)


Seen = tuple[int | None, int | None]

LOOK_EVERY: Final = 0.5
"""Seconds between two reads of the presence that other replicas may have changed."""

LATE_COMMITS: Final = 12.0
"""Seconds after a change in which the store may still show webhooks with lower numbers than it has shown."""

PAGE: Final = 500
"""Maximum webhooks that are asked again at once."""


class HeldWebhook(Struct, frozen=True, gc=False):
    """Describe a webhook on hold: since when and until when, by the boot clock, and the presence it was asked with."""

    seq: int
    room: str
    since: float
    due: float
    seen: Seen


class OnHold(Struct, frozen=True):
    """Say that a webhook is to be held, and the presence that its predicate was asked with."""

    holding: Holding
    seen: Seen

    def as_held(self, queued: PendingWebhook, now: float) -> HeldWebhook:
        """Return the webhook as it is held from `now` on, or has been since its hold began."""
        room = "" if queued.room is None else queued.room.key
        if queued.due is not None and queued.held_since is not None:
            return HeldWebhook(queued.seq, room, queued.held_since, queued.due, self.seen)
        return HeldWebhook(queued.seq, room, now, now + self.holding.seconds, self.seen)

    def as_decision(self, now: float) -> Decision:
        """Return the hold as those see it who are told of decisions; `now` is in seconds since the epoch."""
        return Decision(self.holding.seq, self.holding.id, State.HELD, self.holding.reason, 0, now)


class Holds:
    """Keep the webhooks that this replica holds, by room and by when they are due.

    Those who add a webhook, or change a presence, wake who watches. Nothing here is done for each webhook while none is
    due and nothing changes.
    """

    def __init__(self, clock: Clock = MACHINE) -> None:
        self.clock = clock
        self.now = clock.boot
        self.woken = asyncio.Event()
        self._by_seq: dict[int, HeldWebhook] = {}
        self.by_room: dict[str, set[int]] = {}
        self._due: list[tuple[float, int]] = []
        self._changed: set[str] = set()
        self.others_wrote = False

    def __len__(self) -> int:
        return len(self._by_seq)

    def add(self, held: HeldWebhook) -> None:
        """Hold a webhook. Its room is looked at once: the presence may have changed while the hold was stored."""
        self._by_seq[held.seq] = held
        self.by_room.setdefault(held.room, set()).add(held.seq)
        heapq.heappush(self._due, (held.due, held.seq))
        self.presence_changed(held.room)

    def remove(self, held: HeldWebhook) -> None:
        """Hold a webhook no longer, unless its hold began again meanwhile."""
        if self._by_seq.get(held.seq) is not held:
            return
        del self._by_seq[held.seq]
        in_room = self.by_room[held.room]
        in_room.discard(held.seq)
        if not in_room:
            del self.by_room[held.room]

    def clear(self) -> None:
        """Hold nothing any more: it may belong to another replica."""
        self._by_seq.clear()
        self.by_room.clear()
        self._due.clear()
        self._changed.clear()

    def presence_changed(self, room: str) -> None:
        """Note that the presence in a room may have changed."""
        if room in self.by_room:
            self._changed.add(room)
            self.woken.set()

    def other_replicas_wrote(self) -> None:
        """Note that another replica may have changed the presence in any room."""
        if self.by_room:
            self.others_wrote = True
            self.woken.set()

    def changed(self, *, all_rooms: bool) -> frozenset[str]:
        """Return the rooms whose presence may have changed since the last call, or all, that hold a webhook."""
        rooms, self._changed = self._changed, set()
        return frozenset(self.by_room if all_rooms else rooms & self.by_room.keys())

    def in_rooms(self, rooms: Iterable[str]) -> list[HeldWebhook]:
        """Return the webhooks that are held in some rooms."""
        return [self._by_seq[seq] for room in rooms for seq in self.by_room.get(room, ())]

    def due(self) -> list[HeldWebhook]:
        """Return the webhooks that are due now, the longest due first."""
        now, found = self.now(), []
        while self._due and self._due[0][0] <= now:
            due, seq = heapq.heappop(self._due)
            held = self._by_seq.get(seq)
            if held is not None and held.due == due:
                found.append(held)
        return found

    def put_back(self, held: Iterable[HeldWebhook]) -> None:
        """Hold on to webhooks that were to be asked again, and could not be."""
        for one in held:
            heapq.heappush(self._due, (one.due, one.seq))
            self.presence_changed(one.room)

    def due_at(self) -> float:
        """Return when to look for webhooks that are due, by the boot clock; infinity if none is held."""
        if not self._by_seq:
            return inf
        return self._due[0][0] if self._due else self.now() + LONGEST_WAIT


class HoldWatch:
    """Have held webhooks asked again when they are due, and when the presence in their room has changed.

    `requeue` gives a webhook that is pending again a turn in its room. At most a `page` of them is read at once.
    """

    def __init__(
        self,
        store: Store,
        holds: Holds,
        requeue: Callable[[PendingWebhook], None],
        unread: Unread,
        *,
        subdomain: str | None = None,
        page: int = PAGE,
    ) -> None:
        self._store = store
        self._page = page
        self._holds = holds
        self._requeue = requeue
        self._unread = unread
        self._subdomain = subdomain
        self._newest = 0
        self._settled_at = 0.0
        self._look_at = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._rest()
            self._holds.woken.clear()
            try:
                await self.look()
            except StoreError:
                # The backlog, which reads the same store, says so.
                await asyncio.sleep(LOOK_EVERY)

    async def _rest(self) -> None:
        """Wait until something is due or has changed; for other replicas' changes, until LOOK_EVERY has passed."""
        at = self._holds.due_at()
        if self._holds.others_wrote:
            at = min(at, self._look_at)
        await self._holds.clock.until(self._holds.woken, at)

    async def look(self) -> None:
        """Ask again what is due now, and what is held in rooms whose presence has changed.

        Raises StoreBusy, once all others are asked, if somebody has locked some of it: that stays held until then.
        """
        held = await self._in_changed_rooms()
        due = self._holds.due()
        again = list({one.seq: one for one in (*due, *held)}.values())
        locked: list[HeldWebhook] = []
        try:
            while again:
                locked += await self._ask_again(again[: self._page])
                del again[: self._page]
        finally:
            self._holds.put_back([*again, *locked])
        if locked:
            raise StoreBusy(f"held webhooks that another transaction has locked: {len(locked)}")

    async def _in_changed_rooms(self) -> list[HeldWebhook]:
        rooms = self._holds.changed(all_rooms=await self._others_changed_something())
        if not rooms:
            return []
        try:
            presences = await self._store.presences(rooms)
        except BaseException:
            for room in rooms:
                self._holds.presence_changed(room)
            raise
        return [one for one in self._holds.in_rooms(rooms) if one.seen != seen(presences.get(one.room, UNKNOWN))]

    async def _others_changed_something(self) -> bool:
        """Return True if other replicas may have stored a webhook since the last look, at most every LOOK_EVERY."""
        now = self._holds.now()
        if not self._holds.others_wrote or now < self._look_at:
            return False
        self._holds.others_wrote, self._look_at = False, now + LOOK_EVERY
        try:
            newest = await self._store.newest()
        except BaseException:
            self._holds.others_wrote = True
            raise
        if newest != self._newest:
            self._newest, self._settled_at = newest, now + LATE_COMMITS
        return now < self._settled_at

    async def _ask_again(self, held: list[HeldWebhook]) -> list[HeldWebhook]:
        """Ask again some held webhooks; return those that may still be held, since a row is locked."""
        left = {one.seq: one for one in held}
        try:
            while left and (rows := await self._store.ask_again(list(left))):
                for row in rows:
                    one = left.pop(row.seq)
                    self._holds.remove(one)
                    # By this process's own clock, as long as it lives: the store's may be set back.
                    asked = from_store(row, self._subdomain, one.due)
                    self._requeue(structs.replace(asked, held_since=one.since, due=one.due))
        except StoreBusy:
            self._unread.look()
            return list(left.values())
        for one in left.values():
            self._holds.remove(one)
        if left:
            # Replayed, or made pending by a call whose answer was lost.
            self._unread.look()
        return []


def seen(presence: Presence) -> Seen:
    """Return what a change of presence changes."""
    return presence.humans, presence.bots


def held_in_words(seconds: float, presence: Presence) -> str:
    """Return for how long a webhook is held, and who was in its room when its predicate was asked."""
    if presence.humans is None or presence.humans_since is None:
        return f"held for {seconds:g} s: who is in the room is unknown"
    # Not by `astimezone`: in some zones, the calendar's first and last day are out of its range.
    since = time.strftime("%H:%M:%S", time.localtime(presence.humans_since.timestamp()))
    return f"held for {seconds:g} s: {presence.humans} human{'' if presence.humans == 1 else 's'} since {since}"


def in_seconds(seconds: float) -> str:
    """Return a duration for a person to read: 0.3 s, 12 s."""
    return f"{round(seconds, 1 if seconds < 9.95 else None):g} s" if seconds < 1e5 else f"{seconds:.0f} s"
