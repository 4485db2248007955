"""The receiver: judges a complete delivery, has it stored, answers once it is on disk, and hands it to the dispatcher.

It bounds how much memory deliveries take at once: those that wait for the store, and bodies that are still being read.
The file of the webhook's secret is read again when it changes, so secrets rotate without a restart.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from msgspec import Struct, structs

from whereby_trigger.clock import MACHINE, Clock
from whereby_trigger.config import SECRET_FILE, secrets_in
from whereby_trigger.decide import Dispatcher, PendingWebhook
from whereby_trigger.deliveries import Delivery, DeliveryLog, session_id
from whereby_trigger.errors import ConfigError, StoreError
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Outcome
from whereby_trigger.receive.intake import Accepted, Headers, Rejected, Rules, intake
from whereby_trigger.store import Added, Arrival, RefusalReason, State, Store
from whereby_trigger.threads import in_thread

MAX_REQUESTS = 2000
MAX_BYTES = 64 * 1024 * 1024

MAX_ARRIVING = 16 * 1024 * 1024
"""Bytes of all bodies that are still being read. A signature is checked on a whole body, so anybody may send these."""


class InFlightLimit:
    """Count the deliveries that wait for the store, and the bytes they hold; while it is `full`, no more may wait."""

    def __init__(self, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self.requests = 0
        self.bytes = 0
        self.full = False

    def enter(self, size: int) -> bool:
        """Count one more delivery, with a body of `size` bytes; return False if no more may wait."""
        if self.full:
            return False
        self.requests += 1
        self.bytes += size
        self.full = self.requests >= self._max_requests or self.bytes >= self._max_bytes
        return True

    def leave(self, size: int) -> None:
        """Stop counting a delivery that had `size` bytes."""
        self.requests -= 1
        self.bytes -= size
        self.full = self.requests >= self._max_requests or self.bytes >= self._max_bytes


class Arriving:
    """Bound the bytes of all bodies that are still being read: beyond it, the body that began first gives way.

    Bytes count once they have arrived, not when content-length announces them. A new body is never refused: it may be
    signed.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.bodies: dict[Incoming, None] = {}
        self.bytes = 0

    def make_room(self) -> None:
        """Make the oldest bodies give way until the others are within the bound."""
        while self.bytes > self._max_bytes:
            first = next(iter(self.bodies))
            first.leave()
            first.give_way()


class Incoming:
    """Count the bytes of one body that have arrived, until it is complete, given up, or made to give way.

    `give_way` is called in the last case: the delivery is refused.
    """

    __slots__ = ("_arriving", "_bytes", "give_way")

    def __init__(self, arriving: Arriving, give_way: Callable[[], None]) -> None:
        self._arriving = arriving
        self._bytes = 0
        self.give_way = give_way
        arriving.bodies[self] = None

    def hold(self, size: int) -> None:
        """Count `size` more bytes; bodies may have to give way to them, even this one."""
        if self in self._arriving.bodies:
            self._bytes += size
            self._arriving.bytes += size
            self._arriving.make_room()

    def leave(self) -> None:
        """Stop counting this body; may be called more than once."""
        if self in self._arriving.bodies:
            del self._arriving.bodies[self]
            self._arriving.bytes -= self._bytes


ANSWER_WITHIN = 4.5
"""Seconds a delivery waits for the store: Whereby gives up after 5. Source: Whereby docs, Failed delivery."""

LOOK_EVERY = 0.05
"""Seconds between looks for deliveries that have waited for `ANSWER_WITHIN`."""

RETRY_AFTER = (b"retry-after", b"5")


class Answer(Struct, frozen=True):
    """Describe the answer to a delivery; its body is always empty.

    For a refusal, `why` is from the fixed list of reasons, and `reason` says it in words. `skew` is by how many seconds
    the signature's time differs from ours, if that is why.
    """

    status: int
    why: RefusalReason | None = None
    reason: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    skew: float | None = None


def refusal(why: RefusalReason, reason: str, *headers: tuple[bytes, bytes], skew: float | None = None) -> Answer:
    """Return the answer to a delivery that is refused."""
    return Answer(why.status, why, reason, headers, skew)


OK: Final = Answer(200)
CROWDED_OUT: Final = refusal(RefusalReason.CROWDED, "too many deliveries wait for the store", RETRY_AFTER)
TOO_SLOW: Final = refusal(RefusalReason.STORE_SLOW, "the store did not answer in time", RETRY_AFTER)


class Receiver:
    """Take deliveries: the first stage, before the store and the dispatcher. `clock` says when they arrive."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        log: DeliveryLog,
        rules: Rules,
        waiting: InFlightLimit,
        clock: Clock = MACHINE,
    ) -> None:
        self._clock = clock
        self._store = store
        self._dispatcher = dispatcher
        self._log = log
        self._rules = rules
        self._waiting = waiting
        # The deliveries that the store has been given and that are not answered yet, oldest first; a dict as a set.
        self._unanswered: dict[_Storing, None] = {}
        self._look: asyncio.TimerHandle | None = None

    @property
    def trusted(self) -> tuple[str, ...]:
        """The secrets by which deliveries are verified now."""
        return self._rules.secrets

    def trust(self, secrets: tuple[str, ...]) -> None:
        """Verify the deliveries that come from now on with other secrets."""
        self._rules = structs.replace(self._rules, secrets=secrets)

    def take(
        self,
        headers: Headers,
        body: bytes,
        started: float,
        answer: Callable[[Answer], None],
        path: str,
        http_version: str = "1.1",
    ) -> None:
        """Judge a delivery to `path`, have it stored, and call `answer` then; `started` is by time.monotonic().

        After ANSWER_WITHIN the answer is 503, but the call to the store goes on: the delivery may still be stored, and
        counts as waiting for the store until that call returns.
        """
        verdict = intake(headers, body, self._clock.wall(), self._rules, http_version)
        if isinstance(verdict, Rejected):
            self.refuse(refusal(verdict.why, verdict.reason, skew=verdict.skew), started, answer, path)
            return
        if not self._waiting.enter(len(body)):
            self.refuse(CROWDED_OUT, started, answer, path)
            return
        storing = _Storing(verdict, started, answer, path)
        self._unanswered[storing] = None
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY, self._give_up_on_late)
        self._store.add(verdict.arrival).add_done_callback(partial(self._stored, storing))

    def refuse(self, refused: Answer, started: float, answer: Callable[[Answer], None], path: str) -> None:
        """Answer a delivery to `path` with a status other than 200."""
        delivery = Delivery(refused.status, refused.reason, skew=refused.skew, refusal=refused.why, path=path)
        delivery.seconds = time.monotonic() - started
        self._log.answered(delivery)
        answer(refused)

    def _stored(self, storing: "_Storing", adding: "asyncio.Future[Added]") -> None:
        self._waiting.leave(len(storing.accepted.arrival.body))
        # Before anything else: asyncio logs an exception that is never retrieved.
        failed = adding.cancelled() or adding.exception() is not None
        if storing not in self._unanswered:
            # It was too slow, and has been answered 503.
            return
        del self._unanswered[storing]
        if failed:
            self.refuse(_problem(adding), storing.started, storing.answer, storing.path)
            return
        storing.answer(OK)
        self.hand_on(storing.accepted, adding.result(), storing.started)

    def hand_on(self, accepted: Accepted, added: Added, started: float) -> None:
        """Hand a delivery that was answered 200 to the dispatcher, or log it if it gets no decision now."""
        arrival, webhook = accepted.arrival, accepted.webhook
        if webhook is None or added.spilled or added.duplicate:
            outcome, reason, decision = _undecided(arrival, added)
            self._log.let_in(outcome, started)
            delivery = Delivery(200, reason, arrival.type, arrival.room, arrival.id, decision=decision)
            delivery.session_id = None if webhook is None else session_id(webhook)
            delivery.seconds = time.monotonic() - started
            self._log.answered(delivery)
            if added.state is State.PENDING and not added.spilled:
                # A duplicate whose webhook is pending: it may be waiting in the store, not queued anywhere.
                self._dispatcher.find(added.seq)
            return
        self._log.let_in(Outcome.STORED, started)
        # It was received and queued at the same time.
        received_at = arrival.received_at
        queued = PendingWebhook(
            added.seq,
            added.owner,
            webhook,
            accepted.room,
            received_at,
            received_at,
            started,
            effect=added.effect,
            counts=added.counts,
            stored_at=self._clock.boot(),
        )
        self._dispatcher.submit(queued)

    def _give_up_on_late(self) -> None:
        began_before = time.monotonic() - ANSWER_WITHIN
        late = [storing for storing in self._unanswered if storing.started <= began_before]
        for storing in late:
            del self._unanswered[storing]
            self.refuse(TOO_SLOW, storing.started, storing.answer, storing.path)
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(LOOK_EVERY, self._give_up_on_late) if self._unanswered else None


class _Storing(Struct, eq=False):
    """Hold a delivery while the store has it, and how to answer it."""

    accepted: Accepted
    started: float
    answer: Callable[[Answer], None]
    path: str


def _problem(adding: "asyncio.Future[Added]") -> Answer:
    """Return the answer to a delivery that was not stored."""
    if adding.cancelled():
        return refusal(RefusalReason.STORE_FAILED, "the store was closed", RETRY_AFTER)
    error = adding.exception()
    if isinstance(error, StoreError):
        return refusal(RefusalReason.STORE_FAILED, str(error), RETRY_AFTER)
    words = f"an error of the trigger itself, {type(error).__name__}"
    return refusal(RefusalReason.INTERNAL_ERROR, words, RETRY_AFTER)


def _undecided(arrival: Arrival, added: Added) -> tuple[Outcome, str, str]:
    """Return why a stored delivery gets no decision now: for the counters, in words, and as a state for the log."""
    if added.spilled:
        return Outcome.SPILLED, "spilled: waits for the database", added.state
    if added.duplicate:
        return Outcome.DUPLICATE, "a duplicate: stored already", ""
    return Outcome.QUARANTINED, arrival.reason, added.state


logger = own_logger("whereby_trigger.receive")

LOOK = 2.0
"""Seconds between looks at the file. Kubernetes and systemd replace it without telling us."""


class Trusting(Protocol):
    """Verify deliveries with secrets that may be replaced."""

    @property
    def trusted(self) -> tuple[str, ...]: ...

    def trust(self, secrets: tuple[str, ...]) -> None: ...


async def follow_secret(path: str, receiver: Trusting) -> None:
    """Keep a receiver's secrets as the file at `path` has them, until cancelled.

    If the file is missing, blank or unreadable, the secrets stay as they are, since a delivery that is refused is lost.
    A warning says so once.
    """
    told = ""
    while True:
        await asyncio.sleep(LOOK)
        try:
            found = await in_thread(secrets_in, path)
        except ConfigError as error:
            if told != str(error):
                told = str(error)
                logger.warning("%s; the secret that was read before stays valid", told)
            continue
        told = ""
        if found != receiver.trusted:
            receiver.trust(found)
            number = "1 secret is" if len(found) == 1 else f"{len(found)} secrets are"
            logger.info("%s has changed: %s valid now", SECRET_FILE, number)
