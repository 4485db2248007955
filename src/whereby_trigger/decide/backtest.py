"""Ask predicates about webhooks that were decided before, with the presence as it was then, and write nothing.

The stored webhooks are read in order of arrival, a page at a time, and time is what they say it is: the counts of each
room are merged as they came, a hold is due when a later webhook came after its end, and a webhook that was decided long
after it came, such as a replayed one, is asked about at that later time. What a verdict makes of a webhook is the
decider's own rule.
"""

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.decide.pending import Seen, seen
from whereby_trigger.decide.predicates import (
    DIED,
    Judgement,
    Predicate,
    Predicates,
    Verdict,
    ask,
    judge,
    too_old,
    without_predicate,
)
from whereby_trigger.decide.user_code import UserCode
from whereby_trigger.errors import AppError, DecodeError, StoreUnavailable
from whereby_trigger.process import RefusedEffects, without_effects
from whereby_trigger.store import UNDECIDED, UNKNOWN, PastWebhook, Presence, State, Store, presence_in
from whereby_trigger.store.presence import RoomCounts, counts_of, merged, presence_of
from whereby_trigger.webhook import RoomIdentity, Webhook, decode, is_redacted, is_selected, room_of

PAGE: Final = 250
"""Webhooks that are in memory at once, but for those that are held or were decided late."""

AT_ONCE: Final = 256
"""Sync predicates that wait for their thread at once: one turn of the loop for all of them."""

ASYNC_AT_ONCE: Final = 16
"""Async predicates that run at once, each for another room: what they call must not be flooded."""

LATE: Final = 60.0
"""Seconds after which a decision was late: before, the predicate and the listeners may have taken as long."""

LOOK_EVERY: Final = 1.0
"""Seconds between looks for a predicate that hangs."""

COUNTING: Final = frozenset({"room.client.joined", "room.client.left"})
"""The types whose webhooks say who is in their room."""

QUARANTINED: Final = "could not be read when it came"
UNREADABLE: Final = "cannot be read by this version"
UNDECIDED_YET: Final = "not decided yet"
POISON: Final = "ended the process of the trigger"
REDACTED: Final = "redacted: its predicate might miss what was removed"
NO_PREDICATE: Final = "no predicate for its type, then or now"


class Scope(Struct, frozen=True):
    """Select webhooks to ask about: received from `since` until before `until`, of a room, of a type; None is any.

    `room` is a room key, or a room name with its leading slash.
    """

    since: float = -math.inf
    until: float = math.inf
    room: str | None = None
    type: str | None = None

    def covers(self, past: PastWebhook) -> bool:
        """Return True if a webhook is selected."""
        in_time = self.since <= past.received_at < self.until
        return in_time and self.type in (None, past.type) and self.covers_room(past.room)

    def covers_room(self, key: str | None) -> bool:
        """Return True if webhooks of a room may be selected."""
        if self.room is None or key is None:
            return self.room is None
        return is_selected(key, self.room)


@dataclass
class Summary:
    """Count what a backtest found.

    `asked` counts the webhooks that could be decided again, `was` and `would_be` their states, `changes` the pairs that
    differ, and `not_asked` those that could not, by the reason.
    """

    asked: int = 0
    was: Counter[State] = field(default_factory=Counter)
    would_be: Counter[State] = field(default_factory=Counter)
    changes: Counter[tuple[State, State]] = field(default_factory=Counter)
    not_asked: Counter[str] = field(default_factory=Counter)

    @property
    def different(self) -> int:
        """How many webhooks would be decided otherwise."""
        return self.changes.total()


@dataclass(eq=False, slots=True)
class _Held:
    """Hold a webhook whose predicate said True, until it is due or says otherwise."""

    predicate: Predicate
    past: PastWebhook
    webhook: Webhook
    room: RoomIdentity
    since: float
    due: float
    judged: Judgement

    @property
    def seen(self) -> Seen:
        return self.judged.seen


@dataclass(eq=False, slots=True)
class _Asking:
    """Hold a webhook whose predicate is to be asked, as at a moment; `held` if it is asked again."""

    predicate: Predicate
    past: PastWebhook
    webhook: Webhook
    room: RoomIdentity | None
    at: float
    held: _Held | None
    asking: Coroutine[Any, Any, Verdict]


class Backtest:
    """Decide again, without effect, the webhooks of `scope` in an open store; `tell` is called for each difference.

    `listens` says if a webhook type has listeners; `max_age` and `subdomain` are the settings. `now` is the time, in
    seconds since the epoch, at which the backtest begins: later, nothing is due.
    """

    def __init__(
        self,
        store: Store,
        predicates: Predicates,
        listens: Callable[[str], bool],
        user_code: UserCode,
        scope: Scope,
        tell: Callable[[PastWebhook, Judgement], None],
        *,
        max_age: float,
        subdomain: str | None = None,
        now: float | None = None,
    ) -> None:
        self._store = store
        self._predicates = predicates
        self._use_presence = predicates.use_presence
        self._listens = listens
        self._user_code = user_code
        self._scope = scope
        self._tell = tell
        self._max_age = max_age
        self._subdomain = subdomain
        self._now = time.time() if now is None else now
        self._clock = -math.inf
        self.summary = Summary()
        self._rooms: dict[str, RoomCounts] = {}
        self._held: dict[str, list[_Held]] = {}
        # What is to come: when, in order of arrival, and a hold that is due, or a webhook that was decided late.
        self._to_come: list[tuple[float, int, _Held | PastWebhook]] = []
        self._asking: list[_Asking] = []
        self._busy: set[str | None] = set()
        self._answers_by = math.inf

    async def run(self, progress: Callable[[int], None]) -> Summary:
        """Ask about everything in scope; `progress` is called with the number of the last webhook that was read.

        Raises LifecycleError if a predicate tries to do something, AppError if predicates hang, and StoreError.
        """
        with without_effects() as refused:
            running = asyncio.create_task(self._run(refused, progress))
            try:
                while not running.done():
                    await asyncio.wait({running}, timeout=LOOK_EVERY)
                    if not running.done() and (short := self._user_code.short):
                        raise AppError(f"the predicates cannot be asked any more: {short}; find out what they wait for")
            finally:
                running.cancel()
                await asyncio.wait({running})
                for one in self._asking:
                    one.asking.close()
            running.result()
        return self.summary

    async def _run(self, refused: RefusedEffects, progress: Callable[[int], None]) -> None:
        self._refused = refused
        # Who was in a room when the first webhook came is known from those before it.
        first = 1 if self._use_presence else await self._store.first_since(self._scope.since)
        after = None if first is None else first - 1
        while after is not None and (page := await self._store.history(after, PAGE)):
            for past in page:
                await self._advance(past.received_at)
                await self._take(past)
            after = page[-1].seq
            progress(after)
        await self._advance(self._now)
        while self._asking:
            await self._settle()
            await self._advance(self._now)
        for held in [one for room in self._held.values() for one in room]:
            self._conclude(held.past, held.judged)

    async def _take(self, past: PastWebhook) -> None:
        """Let a webhook come in: merge its count, decide it, and ask again about those its count may have changed."""
        webhook = None
        held: list[_Held] = []
        if past.room in self._busy:
            await self._settle()
        if self._use_presence and past.type in COUNTING and self._scope.covers_room(past.room):
            webhook = _decoded(past)
            count = None if webhook is None else presence_in(webhook, past.room, past.received_at)
            if count is not None:
                said, known = counts_of(count), self._rooms.get(count.key)
                self._rooms[count.key] = said if known is None else merged(known, said)
                held = list(self._held.get(count.key, ()))
        if self._scope.covers(past):
            await self._consider(past, webhook)
        for one in held:
            if one.seen != seen(self._presence(one.room)):
                await self._ask(one.predicate, one.past, one.webhook, one.room, self._clock, one)

    async def _advance(self, moment: float) -> None:
        """Let time pass until a moment, and do what was to come by then."""
        self._clock = max(self._clock, moment)
        while True:
            if self._clock >= self._answers_by:
                await self._settle()
            if not self._to_come or self._to_come[0][0] > self._clock:
                return
            at, _, what = heapq.heappop(self._to_come)
            if isinstance(what, PastWebhook):
                await self._decide(what, None, at)
            else:
                await self._fall_due(what)

    async def _fall_due(self, held: _Held) -> None:
        if held.room.key in self._busy:
            await self._settle()
        if held not in self._held.get(held.room.key, ()):
            return
        past = held.past
        late = 0.0 if past.due_at is None or past.decided_at is None else past.decided_at - past.due_at
        if late > self._max_age:
            # Nobody asked before that: the trigger may not have run.
            self._release(held)
            self._conclude(past, too_old(self._max_age, was_due=True))
            return
        await self._ask(held.predicate, past, held.webhook, held.room, held.due, held)

    async def _consider(self, past: PastWebhook, webhook: Webhook | None) -> None:
        if (why := _why_not(past)) is not None:
            self.summary.not_asked[why] += 1
            return
        moment = min(_asked_at(past), self._now)
        if moment > self._clock and (moment > past.received_at + LATE or past.queued_at > past.received_at):
            heapq.heappush(self._to_come, (moment, past.seq, past))
        else:
            await self._decide(past, webhook, moment)

    async def _decide(self, past: PastWebhook, webhook: Webhook | None, at: float) -> None:
        """Do what the decider does: `at` is when its predicate is asked for the first time."""
        decided_at = past.queued_at if past.decided_at is None else past.decided_at
        first_at = decided_at if past.held_since is None else past.held_since
        if first_at - past.queued_at > self._max_age:
            self._conclude(past, too_old(self._max_age, was_due=False))
            return
        predicate = self._predicates.by_type.get(past.type)
        if predicate is None:
            if past.state in (State.NOTIFIED, State.UNHANDLED):
                self.summary.not_asked[NO_PREDICATE] += 1
            else:
                self._conclude(past, without_predicate(past.type, listened=self._listens(past.type)))
            return
        if is_redacted(past.body):
            self.summary.not_asked[REDACTED] += 1
            return
        webhook = webhook or _decoded(past)
        if webhook is None:
            self.summary.not_asked[UNREADABLE] += 1
            return
        await self._ask(predicate, past, webhook, room_of(webhook, self._subdomain), at, None)

    async def _ask(
        self,
        predicate: Predicate,
        past: PastWebhook,
        webhook: Webhook,
        room: RoomIdentity | None,
        at: float,
        held: _Held | None,
    ) -> None:
        """Note to ask a predicate; what comes next in its room waits for the answer if that depends on it."""
        key = None if room is None else room.key
        if predicate.is_async and key in self._busy:
            await self._settle()
        find = partial(_found, self._presence(room) if predicate.uses_presence else UNKNOWN)
        asking = ask(predicate, webhook, find, self._user_code, _without_pause)
        self._asking.append(_Asking(predicate, past, webhook, room, at, held, asking))
        if predicate.is_async or predicate.hold is not None:
            self._busy.add(key)
        if predicate.hold is not None and held is None:
            self._answers_by = min(self._answers_by, at + predicate.hold)
        if len(self._asking) >= (ASYNC_AT_ONCE if predicate.is_async else AT_ONCE):
            await self._settle()

    async def _settle(self) -> None:
        """Wait for every answer, and go on with each in its order."""
        if not self._asking:
            return
        asked, self._asking = self._asking, []
        self._busy.clear()
        self._answers_by = math.inf
        # A task for a single one would cost more turns of the loop than its answer.
        verdicts = await asyncio.gather(*(one.asking for one in asked)) if len(asked) > 1 else [await asked[0].asking]
        if self._refused.first is not None:
            raise self._refused.first
        for one, verdict in zip(asked, verdicts, strict=True):
            self._answered(one, verdict)

    def _answered(self, one: _Asking, verdict: Verdict) -> None:
        if verdict.short is not None:
            raise StoreUnavailable(f"out of {verdict.short} while predicates were asked: try again, with more of it")
        held = one.held
        judged = judge(
            one.predicate,
            verdict,
            one.webhook,
            one.room,
            self._subdomain,
            held_for=None if held is None else one.at - held.since,
            is_due=held is not None and one.at >= held.due,
        )
        if judged.state is not State.HELD:
            if held is not None:
                self._release(held)
            self._conclude(one.past, judged)
        elif held is not None:
            held.judged = judged
        elif one.room is not None:
            self._hold(_Held(one.predicate, one.past, one.webhook, one.room, one.at, one.at + judged.hold, judged))

    def _hold(self, held: _Held) -> None:
        self._held.setdefault(held.room.key, []).append(held)
        heapq.heappush(self._to_come, (held.due, held.past.seq, held))

    def _release(self, held: _Held) -> None:
        in_room = self._held[held.room.key]
        in_room.remove(held)
        if not in_room:
            del self._held[held.room.key]

    def _conclude(self, past: PastWebhook, judged: Judgement) -> None:
        self.summary.asked += 1
        self.summary.was[past.state] += 1
        self.summary.would_be[judged.state] += 1
        if judged.state is not past.state:
            self.summary.changes[past.state, judged.state] += 1
            self._tell(past, judged)

    def _presence(self, room: RoomIdentity | None) -> Presence:
        counts = None if room is None else self._rooms.get(room.key)
        return UNKNOWN if counts is None else presence_of(counts)


def _why_not(past: PastWebhook) -> str | None:
    """Return why a webhook cannot be asked about, as far as that can be seen without its body, or None."""
    if past.state is State.QUARANTINED:
        return QUARANTINED
    if past.state in UNDECIDED:
        return UNDECIDED_YET
    if past.state is State.FAILED and past.reason.startswith(DIED):
        return POISON
    return None


def _asked_at(past: PastWebhook) -> float:
    """Return when a webhook's predicate was asked for the first time, or would have been, as well as is known."""
    if past.held_since is not None:
        return past.held_since
    if past.decided_at is not None and past.decided_at > past.queued_at + LATE:
        return past.decided_at
    return past.queued_at


def _decoded(past: PastWebhook) -> Webhook | None:
    try:
        return decode(past.body)
    except DecodeError:
        return None


async def _found(presence: Presence) -> Presence:
    return presence


async def _without_pause(_: float) -> None:
    """Ask again at once: what a predicate waited for is long over."""
