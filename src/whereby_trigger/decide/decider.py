"""The decision on one webhook, step by step: its predicate, its listeners, the state and the reason.

A webhook may kill the process whenever its predicate is asked. After one crash, what was pending is decided again as
usual. A webhook still pending after two crashes is a suspect. Suspects enter user code one at a time, ahead of others.
Each attempt at a suspect is stored before it begins, so each further crash is blamed on one webhook. After three such
crashes, the webhook ends as failed, and its predicate is not asked again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import Final, TypeVar, cast

from msgspec import Struct, structs

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
from whereby_trigger.loggers import own_logger
from whereby_trigger.store import UNKNOWN, Decision, Holding, Presence, State, Store
from whereby_trigger.store.presence import presence_of
from whereby_trigger.threads import shortage_of
from whereby_trigger.webhook import RoomIdentity, RoomWebhook, redacted

Asked = dict[str, list["asyncio.Future[Presence]"]]
"""The futures that wait for the presence of a room, by the room's key."""


class Presences:
    """Read the presence of rooms from the store, once for all rooms asked about in one turn of the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: Asked = {}

    def of(self, room: str) -> "asyncio.Future[Presence]":
        """Return a future of a room's presence, read from the store after this call; it raises the store's errors."""
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


logger = own_logger("whereby_trigger.decide")

T = TypeVar("T")

SUSPECT: Final = 2
"""A webhook that was pending at this many crashes is a suspect.

A loss of the lease while it was being decided counts as a crash: the webhook may be what blocks the process.
"""

CLAIM_AGAIN = 0.5
"""Seconds between attempts to claim the room of a success while the store is unavailable."""

AS_STORED = 0.1
"""For this many seconds after its commit, a webhook is decided with the presence that the commit returned.

After that, the presence is read from the store. The time counts from the commit, not from the arrival: under load, a
commit may take longer than this, and then each webhook would cost a read.
"""

READ_AGAIN = 0.5
"""Seconds between reads of a room's presence while the store is unavailable, and between looks at the spill."""

ASK_AGAIN = 1.0
"""Seconds before a step is retried that failed because the process had run out of something, such as memory."""

MAX_CRASHES: Final = 3
"""A suspect fails, without another attempt, when this many of its stored attempts have ended in a crash."""


class _Noted(Struct, frozen=True):
    """Count what the store does not know of a webhook.

    `losses` counts losses of the lease while it was being decided here; `outlived` counts stored attempts that ended
    without killing this process. `replica` is the id that this process had when it last counted.
    """

    losses: int = 0
    outlived: int = 0
    replica: str = ""


_NOTHING: Final = _Noted()


class Decider:
    """Decide webhooks one by one, or put them on hold.

    `max_age` is in seconds; `subdomain` is the setting of that name, for the reasons that mention it. `claims` asks for
    an assistant in the room of a success and returns the result in words. Nothing is decided without the store's lease.
    `redact` names the fields that are removed from a stored body when its webhook is decided. With it, errors of user
    code are stored without their texts, which may repeat those fields.
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
        self._noted: dict[int, _Noted] = {}
        self._short, self._short_until = "", 0.0

    @property
    def short(self) -> str:
        """What the process ran out of a moment ago, while it decided a webhook; "" if nothing."""
        return self._short if self._clock.boot() < self._short_until else ""

    async def decide(self, queued: PendingWebhook) -> Decision | OnHold | None:
        """Decide a webhook and call its listeners, or put it on hold; return None if it is no longer this replica's.

        Raises only StoreUnavailable: if a suspect's attempt cannot be stored, if the lease is lost while the store
        cannot be reached, or if the process has run out of something before any listener was called. After any other
        error, the webhook fails: it must not be retried forever, and those behind it in its room must get their turn.
        """
        if not self._store.lease.held or queued.owner != self._store.replica:
            # It was stored or read under a lease that has been lost. The replica that takes it over decides it.
            return None
        try:
            noted = self._noted.get(queued.seq, _NOTHING)
            attempts = queued.attempts - noted.outlived
            if attempts >= MAX_CRASHES:
                reason = f"{DIED}, {attempts} times"
                return self._decision(queued, Judgement(State.FAILED, reason), [])
            if queued.crashes + noted.losses < SUSPECT or not self._enters_user_code(queued):
                return await self._run(queued, self._user_code)
            async with self._suspects.alone(queued):
                return await self._run_blamed(queued)
        except asyncio.CancelledError:
            # If the lease was lost, this webhook may be why: its user code may have blocked the event loop.
            self._note(queued, losses=1)
            raise
        except StoreUnavailable:
            raise
        except Exception as error:
            if (short := shortage_of(error)) is not None:
                raise StoreUnavailable(f"out of {short}") from error
            reason = f"an error of the trigger itself, {type(error).__name__}"
            logger.error("webhook %s failed: %s", queued.webhook.id, reason, extra=self._fields(queued))
            return self._decision(queued, Judgement(State.FAILED, reason), [self._error_text(error)])

    async def _run_blamed(self, queued: PendingWebhook) -> Decision | OnHold | None:
        """Store a suspect's attempt, then decide it. An attempt that ends in an error does not count as a crash."""
        try:
            if not await self._store.begin_attempt(queued.seq):
                return None
            return await self._run(queued, self._user_code.ahead())
        except Exception:
            # Also if begin_attempt raised: the attempt may have been stored, and only the answer lost.
            self._note(queued, outlived=1)
            raise

    def forget_losses(self, pending: Container[int]) -> None:
        """Forget the counts of webhooks that are no longer `pending` here, unless this replica's id counted them.

        Call it when the lease is lost. Another replica may have decided those webhooks, and then nothing else here
        would forget their counts.
        """
        here = self._store.replica
        self._noted = {seq: one for seq, one in self._noted.items() if seq in pending or one.replica == here}

    def _note(self, queued: PendingWebhook, *, losses: int = 0, outlived: int = 0) -> None:
        known = self._noted.get(queued.seq, _NOTHING)
        self._noted[queued.seq] = _Noted(known.losses + losses, known.outlived + outlived, self._store.replica)

    def _enters_user_code(self, queued: PendingWebhook) -> bool:
        type = queued.webhook.type
        return self._age(queued) <= self._max_age and (
            type in self._predicates.by_type or bool(self._emitter.listeners(type))
        )

    def _age(self, queued: PendingWebhook) -> float:
        return self._clock.wall() - queued.queued_at if queued.due is None else self._clock.boot() - queued.due

    async def _run(self, queued: PendingWebhook, user_code: UserCode) -> Decision | OnHold | None:
        errors = _Errors(self._store, queued, self._error_text)
        while True:
            if self._age(queued) > self._max_age:
                judgement = too_old(self._max_age, was_due=queued.due is not None)
                return self._decision(queued, judgement, errors.close())
            if queued.due is not None:
                await self._until_unspilled()
            outcome = await self._ask(queued, user_code)
            if outcome.short is None:
                break
            await self._sit_out(queued, "its predicate", outcome.short)
        if not self._store.lease.held:
            # The process may have been frozen, and another replica may decide this by a newer presence.
            self._note(queued, losses=1)
            return None
        # With `redact`, only the reason mentions the error, and only by its type.
        if outcome.error is not None and not self._redact:
            errors.keep(outcome.error)
        if outcome.state is State.FIRED and queued.room is not None:
            # The cast holds: predicates are registered only for webhook types that name a room.
            success = TriggerSuccess(queued.room.url, cast(RoomWebhook, queued.webhook), queued.attempt)
            await self._emit(queued, TRIGGER_EVENT_SUCCESS, success, user_code, errors)
            claim = partial(self._claim, queued.room, queued, errors)
            if claimed := await self._despite_shortages(queued, "asking for its assistant", claim):
                outcome = Judgement(State.FIRED, f"{outcome.reason}; {claimed}", outcome.asked)
        # If the webhook was held, listeners for its type were called when the hold began, and are not called again. A
        # webhook of an unknown type may have the name of one of our own events, and must not cause that event.
        event: str = queued.webhook.type
        listened = False
        if queued.due is None and event not in OWN_EVENTS:
            listened = await self._emit(queued, event, queued.webhook, user_code, errors)
        return await self._despite_shortages(
            queued, "its decision", partial(self._conclude, queued, outcome, errors, listened=listened)
        )

    async def _emit(
        self, queued: PendingWebhook, event: str, payload: object, user_code: UserCode, errors: "_Errors"
    ) -> bool:
        left = self._emitter.listeners_left(event)
        if not left.listeners:
            return False
        emit = partial(self._emitter.emit, event, payload, user_code, errors.add, left)
        return await self._despite_shortages(queued, "a listener", emit)

    async def _despite_shortages(self, queued: PendingWebhook, what: str, step: Callable[[], Awaitable[T]]) -> T:
        """Do one step of a decision, and retry it after each shortage.

        A retry of the whole decision would call listeners again for the same success, with the same attempt number.
        """
        while True:
            try:
                return await step()
            except StoreError:
                raise
            except Exception as error:
                if (short := shortage_of(error)) is None:
                    raise
            await self._sit_out(queued, what, short)

    async def _conclude(
        self, queued: PendingWebhook, outcome: Judgement, errors: "_Errors", *, listened: bool
    ) -> Decision | OnHold:
        if outcome.state is State.HELD:
            reason = storable_error(outcome.reason)
            holding = Holding(queued.seq, queued.webhook.id, reason, outcome.hold, tuple(errors.close()))
            self._settle(queued)
            return OnHold(holding, outcome.seen)
        if outcome.state is State.UNHANDLED and listened:
            outcome = without_predicate(queued.webhook.type, listened=True)
        return self._decision(queued, outcome, errors.close())

    async def _ask(self, queued: PendingWebhook, user_code: UserCode) -> Judgement:
        predicate = self._predicates.by_type.get(queued.webhook.type)
        if predicate is None:
            return without_predicate(queued.webhook.type, listened=False)
        if queued.due is not None and queued.held_since is not None and predicate.hold is not None:
            # Use the hold as it was when it began: the program may have changed it since.
            predicate = structs.replace(predicate, hold=round(queued.due - queued.held_since, 3))
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
        """Return who is in a webhook's room, as its own commit returned it if that is recent, else read from the store.

        If the store is unavailable, wait for it while the lease is held: later webhooks of the room must not overtake
        this one.
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

    async def _until_unspilled(self) -> None:
        """Wait until the store has every spilled delivery: one of them may say that a held predicate is no longer True.

        Raises StoreUnavailable if the lease is lost meanwhile.
        """
        while self._store.spilled:
            if not self._store.lease.held:
                raise StoreUnavailable("deliveries wait in the spill, and the lease has run out")
            await self._clock.sleep(READ_AGAIN)

    async def _sit_out(self, queued: PendingWebhook, what: str, short: str) -> None:
        """Wait before the retry of a step (`what`) that failed because the process is out of something (`short`).

        The webhook keeps its turn meanwhile: later webhooks of its room must not overtake it.
        """
        fields = self._fields(queued)
        logger.warning(
            "webhook %s waits: %s failed, the process is out of %s", queued.webhook.id, what, short, extra=fields
        )
        # Twice as long as the wait: the shortage must not count as over before the step is retried.
        self._short, self._short_until = f"out of {short}", self._clock.boot() + 2 * ASK_AGAIN
        await self._clock.sleep(ASK_AGAIN)

    def _fields(self, queued: PendingWebhook) -> dict[str, object]:
        return queued.log_fields(self._store.replica)

    async def _claim(self, room: RoomIdentity, queued: PendingWebhook, errors: "_Errors") -> str:
        """Claim the room of a success, and return in words what came of it.

        If the store is unavailable, wait for it: the listeners were already called for this success, and would be
        called again if its webhook were decided again. Wait even if the lease has lapsed: it may be renewed late, under
        the same replica id, and then the second decision would not count as another attempt.
        """
        while True:
            try:
                return await self._claims.claim(room, queued.webhook, queued.received_at)
            except StoreUnavailable as error:
                if queued.owner != self._store.replica:
                    raise
                fields = self._fields(queued)
                logger.warning("webhook %s waits to ask for its assistant: %s", queued.webhook.id, error, extra=fields)
                await self._clock.sleep(CLAIM_AGAIN)
            except StoreError as error:
                errors.keep(f"asking for an assistant: {self._error_text(error)}")
                return "no assistant: the store refused the request"

    def _decision(self, queued: PendingWebhook, outcome: Judgement, errors: list[str]) -> Decision:
        self._settle(queued)
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

    def _settle(self, queued: PendingWebhook) -> None:
        self._noted.pop(queued.seq, None)

    def _error_text(self, error: BaseException) -> str:
        return storable_error(brief_error(error) if self._redact else full_error(error))


class _Errors(Struct, eq=False):
    """Gather the errors of user code for the decision. After `close`, append further ones to the stored decision."""

    store: Store
    queued: PendingWebhook
    text_of: Callable[[BaseException], str]
    gathered: list[str] = []
    closed: bool = False

    def add(self, listener: str, error: BaseException) -> None:
        id, fields = self.queued.webhook.id, self.queued.log_fields(self.store.replica)
        logger.warning("listener %s %s (webhook %s)", listener, brief_error(error), id, extra=fields)
        self.keep(f"listener {listener}: {self.text_of(error)}")

    def keep(self, error: str) -> None:
        if self.closed:
            self.store.append_error(self.queued.webhook.id, storable_error(error))
        else:
            self.gathered.append(storable_error(error))

    def close(self) -> list[str]:
        self.closed = True
        return self.gathered
