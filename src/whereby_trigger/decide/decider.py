"""The decision on one webhook, step by step: its predicate, its listeners, the state and the reason.

What was pending when a replica died is decided again with all the rest; what was pending at a second death too is
suspected of it, and is let into user code alone and ahead of others, with its blame on disk before. So every death
from then on is blamed on one webhook, and the one that was blamed for three is failed without being asked about again.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from msgspec import Struct

from whereby_trigger.assist import Claims
from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.decide.emitter import OWN_EVENTS, TRIGGER_EVENT_SUCCESS, Emitter, TriggerSuccess
from whereby_trigger.decide.pending import OnHold, PendingWebhook, PoisonIsolation
from whereby_trigger.decide.predicates import (
    DIED,
    Judgement,
    Predicates,
    ask,
    brief_error,
    full_error,
    judge,
    storable_error,
    too_old,
    without_predicate,
)
from whereby_trigger.decide.user_code import UserCode
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store import UNKNOWN, Decision, Holding, Presence, State, Store
from whereby_trigger.store.presence import presence_of
from whereby_trigger.threads import shortage_of
from whereby_trigger.webhook import RoomIdentity, RoomWebhook, Webhook, redacted

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


logger = logging.getLogger("whereby_trigger.decide")

SUSPECT: Final = 2
"""A webhook that was pending at this many ends of a process may be what ends it."""

CLAIM_AGAIN = 0.5
"""Seconds after which the room of a success is claimed again from a store that was away."""

AS_STORED = 0.1
"""Seconds after its commit within which a webhook is decided with who was in its room as it was stored.

Not after its arrival: under load a commit may take longer than this, and each webhook would cost a read.
"""

READ_AGAIN = 0.5
"""Seconds after which who is in a room is read again from a store that was away."""

ASK_AGAIN = 1.0
"""Seconds after which a predicate is asked again that failed for what the process has run out of."""

MAX_CRASHES: Final = 3
"""A webhook that was in user code at this many ends of a process is not asked about again."""


class Decider:
    """Decide webhooks one by one, or put them on hold.

    `max_age` is in seconds, `subdomain` the setting, for the reasons; `claims` asks for an assistant in the room of a
    success and says in words what came of it. Nothing is decided without the store's lease. Times are by `clock`.
    `redact` names the fields that a stored body loses with its decision; the errors of user code, which may repeat
    them, are then stored without their texts.
    """

    def __init__(
        self,
        store: Store,
        predicates: Predicates,
        emitter: Emitter,
        user_code: UserCode,
        claims: Claims,
        *,
        max_age: float,
        subdomain: str | None = None,
        clock: Clock = MACHINE,
        redact: tuple[str, ...] = (),
    ) -> None:
        self._clock = clock
        self._redact = redact
        self._store = store
        self._presences = Presences(store)
        self._predicates = predicates
        self._emitter = emitter
        self._user_code = user_code
        self._max_age = max_age
        self._subdomain = subdomain
        self._claims = claims
        self._suspects = PoisonIsolation()
        self._short, self._short_until = "", 0.0

    @property
    def short(self) -> str:
        """What the process had run out of a moment ago that a predicate needs; "" if they find all of it."""
        return self._short if self._clock.boot() < self._short_until else ""

    async def decide(self, queued: PendingWebhook) -> Decision | OnHold | None:
        """Decide a webhook and tell its listeners, or put it on hold; None where it is no longer this replica's.

        Raises StoreUnavailable where a webhook that was taken over cannot be blamed first, or the lease is lost while
        who is in its room cannot be read, and nothing else: the webhooks behind it in its room must get their turn, and
        it must not be asked forever.
        """
        if not self._store.lease.held or queued.owner != self._store.replica:
            # Stored or read under a lease that was lost: whoever takes it over counts the attempt.
            return None
        try:
            if queued.attempts >= MAX_CRASHES:
                reason = f"{DIED}, {queued.attempts} times"
                return self._decision(queued, Judgement(State.FAILED, reason), [])
            if queued.crashes < SUSPECT:
                return await self._run(queued, self._user_code)
            async with self._suspects.alone(queued):
                if not await self._store.begin_attempt(queued.seq):
                    return None
                return await self._run(queued, self._user_code.ahead())
        except StoreUnavailable:
            raise
        except Exception as error:
            if (short := shortage_of(error)) is not None:
                raise StoreUnavailable(f"out of {short}") from error
            reason = f"an error of the trigger itself, {type(error).__name__}"
            logger.error("webhook %s failed: %s", queued.webhook.id, reason, extra=self._fields(queued))
            return self._decision(queued, Judgement(State.FAILED, reason), [self._told(error)])

    async def _run(self, queued: PendingWebhook, user_code: UserCode) -> Decision | OnHold:
        errors = _Errors(self._store, queued, self._told)
        while True:
            age = self._clock.wall() - queued.queued_at if queued.due is None else self._clock.boot() - queued.due
            if age > self._max_age:
                judgement = too_old(self._max_age, was_due=queued.due is not None)
                return self._decision(queued, judgement, errors.close())
            outcome = await self._ask(queued, user_code)
            if outcome.short is None:
                break
            await self._sit_out(queued, outcome.short)
        # Its reason says what kind of error it was.
        if outcome.error is not None and not self._redact:
            errors.keep(outcome.error)
        if outcome.state is State.FIRED and queued.room is not None:
            # Predicates are registered for webhooks that name a room, and for no others.
            success = TriggerSuccess(queued.room.url, cast(RoomWebhook, queued.webhook), queued.attempt)
            await self._emitter.emit(TRIGGER_EVENT_SUCCESS, success, user_code, errors.add)
            if claimed := await self._claim(queued.room, queued, errors):
                outcome = Judgement(State.FIRED, f"{outcome.reason}; {claimed}", outcome.asked)
        # Told when it was first held, and not again.
        listened = queued.due is None and await self._emit_type(queued.webhook, user_code, errors)
        if outcome.state is State.HELD:
            reason = storable_error(outcome.reason)
            holding = Holding(queued.seq, queued.webhook.id, reason, outcome.hold, tuple(errors.close()))
            return OnHold(holding, outcome.seen)
        if outcome.state is State.UNHANDLED and listened:
            outcome = without_predicate(queued.webhook.type, listened=True)
        return self._decision(queued, outcome, errors.close())

    async def _ask(self, queued: PendingWebhook, user_code: UserCode) -> Judgement:
        predicate = self._predicates.by_type.get(queued.webhook.type)
        if predicate is None:
            return without_predicate(queued.webhook.type, listened=False)
        asked_at = self._clock.boot() if predicate.hold is not None else 0.0
        verdict = await ask(predicate, queued.webhook, partial(self._presence, queued), user_code, self._clock.sleep)
        return judge(
            predicate,
            verdict,
            queued.webhook,
            queued.room,
            self._subdomain,
            held_for=None if queued.held_since is None else self._clock.boot() - queued.held_since,
            is_due=queued.due is not None and asked_at >= queued.due,
        )

    async def _presence(self, queued: PendingWebhook) -> Presence:
        """Return who is in a webhook's room, read again unless the commit that stored it has just told.

        However long the store is away: what came after it must not overtake it.
        """
        if queued.room is None:
            return UNKNOWN
        if queued.counts is not None and self._clock.boot() - queued.stored_at < AS_STORED:
            return presence_of(queued.counts)
        while True:
            try:
                return await self._presences.of(queued.room.key)
            except StoreUnavailable as error:
                if not self._store.lease.held:
                    raise
                fields = self._fields(queued)
                logger.warning(
                    "webhook %s waits to learn who is in its room: %s", queued.webhook.id, error, extra=fields
                )
                await self._clock.sleep(READ_AGAIN)

    async def _sit_out(self, queued: PendingWebhook, short: str) -> None:
        """Wait before a predicate is asked again which failed for what the process has run out of.

        In its place: what came after it in its room must not overtake it.
        """
        fields = self._fields(queued)
        logger.warning(
            "webhook %s waits, its predicate found the process out of %s", queued.webhook.id, short, extra=fields
        )
        # While it is asked again the shortage is not known to be over.
        self._short, self._short_until = f"out of {short}", self._clock.boot() + 2 * ASK_AGAIN
        await self._clock.sleep(ASK_AGAIN)

    def _fields(self, queued: PendingWebhook) -> dict[str, object]:
        return queued.log_fields(self._store.replica)

    async def _claim(self, room: RoomIdentity, queued: PendingWebhook, errors: "_Errors") -> str:
        """Claim the room of a success, however long the store is away: decided anew, it would be told again."""
        while True:
            try:
                return await self._claims.claim(room, queued.webhook, queued.received_at)
            except StoreUnavailable as error:
                if not self._store.lease.held:
                    raise
                fields = self._fields(queued)
                logger.warning("webhook %s waits to ask for its assistant: %s", queued.webhook.id, error, extra=fields)
                await self._clock.sleep(CLAIM_AGAIN)
            except StoreError as error:
                errors.keep(f"asking for an assistant: {self._told(error)}")
                return "no assistant: the store refused the request"

    async def _emit_type(self, webhook: Webhook, user_code: UserCode, errors: "_Errors") -> bool:
        # Whereby may name a new type as it likes, but our own events are not Whereby's to cause.
        event: str = webhook.type
        return event not in OWN_EVENTS and await self._emitter.emit(event, webhook, user_code, errors.add)

    def _decision(self, queued: PendingWebhook, outcome: Judgement, errors: list[str]) -> Decision:
        return Decision(
            seq=queued.seq,
            id=queued.webhook.id,
            state=outcome.state,
            reason=storable_error(f"{outcome.reason}; {queued.effect}" if queued.effect else outcome.reason),
            attempts=queued.takeovers + outcome.asked,
            decided_at=self._clock.wall(),
            errors=tuple(errors),
            body=redacted(queued.webhook.raw, self._redact) if self._redact else None,
        )

    def _told(self, error: BaseException) -> str:
        return storable_error(brief_error(error) if self._redact else full_error(error))


class _Errors(Struct, eq=False):
    """Gather what user code raised: kept with the decision until it is made, noted to it afterwards."""

    store: Store
    queued: PendingWebhook
    told: Callable[[BaseException], str]
    gathered: list[str] = []
    closed: bool = False

    def add(self, listener: str, error: BaseException) -> None:
        id, fields = self.queued.webhook.id, self.queued.log_fields(self.store.replica)
        logger.warning("listener %s %s (webhook %s)", listener, brief_error(error), id, extra=fields)
        self.keep(f"listener {listener}: {self.told(error)}")

    def keep(self, error: str) -> None:
        if self.closed:
            self.store.append_error(self.queued.webhook.id, storable_error(error))
        else:
            self.gathered.append(storable_error(error))

    def close(self) -> list[str]:
        self.closed = True
        return self.gathered
