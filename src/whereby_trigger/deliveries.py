"""The log of deliveries: one line for each, with its answer, what was decided and hints; refusals are counted, too.

Refusals are counted by minute and reason, on their way to the store; the newest are kept in full.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.loggers import own_logger
from whereby_trigger.metrics import Counts, Outcome
from whereby_trigger.store import CLOSED, MINUTE, Decision, RefusalCount, RefusalReason, State, Store
from whereby_trigger.store.protocol import ignore_result
from whereby_trigger.text import printable
from whereby_trigger.webhook import WEBHOOK_CLASSES, RoomIdentity, Webhook

store_logger = own_logger("whereby_trigger.store")

STORE_EVERY: Final = 10.0
"""Seconds between two writes of what was counted."""

NEWEST_KEPT: Final = 100
LONGEST_PATH: Final = 200
MOST_COUNTS: Final = 2000
"""Counts that wait for the store, one for each minute and reason: about 100 minutes of every kind of refusal."""


class RefusedDelivery(Struct, frozen=True):
    """Describe a refused delivery, or `count` connections that were closed at once, without anything of a body.

    `at` is in seconds since the epoch; `path` is printable, and empty if it is not known; `status` is 0 if there was no
    answer; `skew` is how far a right signature was off, in seconds.
    """

    at: float
    path: str
    status: int
    reason: RefusalReason
    skew: float | None
    count: int


class _Count(Struct):
    """Count refusals; the store has the first `stored` of them, as those of `replica`."""

    count: int = 0
    stored: int = 0
    replica: str = ""


class Refusals:
    """Count refusals for the store, and keep the newest; memory is bounded, whatever anybody sends.

    A count of a minute only grows, and the store keeps the highest: what could not be stored is part of the next try.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[int, RefusalReason], _Count] = {}
        self.newest: deque[RefusedDelivery] = deque(maxlen=NEWEST_KEPT)

    def note(self, reason: RefusalReason, path: str = "", skew: float | None = None, count: int = 1) -> None:
        """Count refusals that happen now."""
        now = time.time()
        shown = printable(path[:LONGEST_PATH])[:LONGEST_PATH]
        self.newest.append(RefusedDelivery(now, shown, reason.status, reason, skew, count))
        key = (int(now) // MINUTE * MINUTE, reason)
        if key not in self._counts:
            if len(self._counts) >= MOST_COUNTS:
                self._merge_oldest()
            self._counts[key] = _Count()
        self._counts[key].count += count

    async def keep(self, store: Store) -> None:
        """Store what is counted every STORE_EVERY seconds, until cancelled."""
        while True:
            await asyncio.sleep(STORE_EVERY)
            # Not logged: what the store cannot take now is told where deliveries wait for it.
            with contextlib.suppress(StoreError):
                await self.store(store)

    async def store(self, store: Store) -> None:
        """Store what was counted since the last time. Raises StoreError, and then it is part of the next try."""
        counts = self._unstored(store.replica)
        if counts:
            await store.add_refusals(counts)
        for each in counts:
            # While the store was asked, it may have been merged into a later minute.
            if (held := self._counts.get((each.minute, RefusalReason(each.reason)))) is not None:
                held.stored = each.count
        present = int(time.time()) // MINUTE * MINUTE
        for key in [key for key, held in self._counts.items() if key[0] < present and held.stored == held.count]:
            del self._counts[key]

    def store_last(self, store: Store) -> None:
        """Hand what was counted to a store that is about to close, which finishes what it was given before."""
        if counts := self._unstored(store.replica):
            asyncio.ensure_future(store.add_refusals(counts)).add_done_callback(ignore_result)

    def _unstored(self, replica: str) -> list[RefusalCount]:
        counts: list[RefusalCount] = []
        for (minute, reason), held in self._counts.items():
            if held.replica != replica:
                # Its lease was lost, and it has another id now: that counts from 0.
                held.count, held.stored, held.replica = held.count - held.stored, 0, replica
            if held.count > held.stored:
                counts.append(RefusalCount(minute, reason, replica, reason.status, held.count))
        return counts

    def _merge_oldest(self) -> None:
        """Count the oldest minute as part of the next one that has a count of the same reason."""
        oldest: dict[RefusalReason, tuple[int, RefusalReason]] = {}
        for key in self._counts:
            if key[1] in oldest:
                merged = self._counts.pop(oldest[key[1]])
                self._counts[key].count += merged.count - merged.stored
                return
            oldest[key[1]] = key


logger = own_logger("whereby_trigger.deliveries")

REFUSED_IN_A_ROW = 3

DASHBOARD = "the secret that Whereby's dashboard shows for this webhook (Configure, Webhooks)"
CLOCK_HINT = "signed {skew:+.0f} s from this machine's time: set its clock, or raise tolerance="
CLOCKS_APART = "signed further from this machine's time than tolerance= allows: set its clock"
ELSEWHERE = "deliveries are taken at"
SENT_ELSEWHERE = (
    "sent to another path: is the URL right that Whereby's dashboard shows for this webhook (Configure, Webhooks), "
    "and does a proxy on the way change the path? path= sets the one that is served"
)
ELSEWHERE_A_SECOND = 10
"""Lines a second about paths that are not served, or requests that are none, at the most: anybody may send them."""

HINTS = {
    "wrong signature": f"signed with another secret: is WHEREBY_WEBHOOK_SECRET {DASHBOARD}?",
    "no signature": "unsigned: either they are not Whereby's, or a proxy on the way drops the header Whereby-Signature",
    "stale signature": CLOCKS_APART,
    "signature from the future": CLOCKS_APART,
    "wrong path": SENT_ELSEWHERE,
    "no secret is set": f"not from a program on this machine: to take them, set WHEREBY_WEBHOOK_SECRET to {DASHBOARD}",
}

OPTIONAL = ("unsigned", "skew_s")
"""Fields that only some lines have."""

LINE = "%-26s %-36s %s %-11s %-46s %s ms%s"
PREDICATE = """\
nothing handles {type} yet; to have an assistant join, paste

from whereby_trigger import {imports}

@trigger.when("{type}")
def {name}(webhook: {class_name}) -> bool:
    return {answer}
"""
LISTENER = """\
nothing handles {type} yet; to hear of it, paste

from whereby_trigger import {imports}

@trigger.on("{type}")
async def {name}(webhook: {class_name}) -> None:
    ...
"""
ANSWERS = {
    "room.client.joined": "is_human(webhook)",
    "room.session.started": "True",
    "assistant.requested": "True",
}
"""What a predicate for a type is likely to return. Who leaves, knocks or ends something wants no assistant."""


class Delivery(Struct):
    """Describe one delivery and its answer, and what was decided, "" if nothing was because of it.

    `seconds` runs from its first byte to its answer, or to the decision. `refusal` is None if it was let in; else
    `path` is where it was sent, as far as that is known.
    """

    status: int
    reason: str
    type: str = ""
    room: str | None = None
    id: str = ""
    session_id: str | None = None
    skew: float | None = None
    seconds: float = 0.0
    decision: str = ""
    refusal: RefusalReason | None = None
    path: str = ""


class DeliveryLine(Struct, frozen=True):
    """Write a delivery's line for a person from the fields of its record, when somebody asks for it: JSON does not."""

    fields: dict[str, Any]
    reason: str

    def __str__(self) -> str:
        fields = self.fields
        type, room = _on_one_line(fields["type"]) or "-", printable(fields["room"] or "-")
        decision, mark = fields["decision"] or "-", " UNSIGNED" if "unsigned" in fields else ""
        return LINE % (type, room, fields["answer"], decision, _on_one_line(self.reason), fields["ms"], mark)


class DeliveryLog:
    """Log and count each delivery once: when it is refused or a duplicate at its answer, else when it is decided.

    If no signature is checked, each line says so. Every way to refuse a delivery passes here. `replica` returns the id
    of the replica, which may change.
    """

    def __init__(
        self,
        *,
        signed: bool = True,
        counts: Counts | None = None,
        refusals: Refusals | None = None,
        replica: Callable[[], str] = str,
    ) -> None:
        self._counts = counts or Counts()
        self._refusals = refusals or Refusals()
        self._signed = signed
        self._replica = replica
        self._records = _Records()
        self._refused = ""
        self._refused_in_a_row = 0
        self._shown: set[str] = set()
        self._elsewhere = _OnceASecond(ELSEWHERE_A_SECOND)
        self._elsewhere_in_a_row = 0

    def answered(self, delivery: Delivery) -> None:
        """Log a delivery that no decision follows, and count it if it is refused."""
        if delivery.refusal is not None:
            self._counts.refused(delivery.refusal, delivery.seconds)
            self._refusals.note(delivery.refusal, delivery.path, delivery.skew)
        if delivery.reason.startswith(ELSEWHERE):
            self._sent_elsewhere(delivery)
            return
        self._write(delivery)
        if delivery.status != 401:
            self._refused_in_a_row = self._elsewhere_in_a_row = 0
            return
        self._refused_in_a_row = self._refused_in_a_row + 1 if delivery.reason == self._refused else 1
        self._refused = delivery.reason
        hint = hint_for(delivery)
        if hint is not None and self._refused_in_a_row % REFUSED_IN_A_ROW == 0:
            logger.warning("%d deliveries in a row were %s", self._refused_in_a_row, hint)

    def let_in(self, outcome: Outcome, started: float) -> None:
        """Count a delivery that was answered 200 now; `started` is when it began, by time.monotonic()."""
        self._refused_in_a_row = self._elsewhere_in_a_row = 0
        self._counts.let_in(outcome, monotonic() - started)

    def unread(self, reason: RefusalReason, count: int = 1) -> None:
        """Count requests of which nothing was read as a delivery; log them, now and then, if they were answered."""
        self._counts.refused(reason, count=count)
        self._refusals.note(reason, count=count)
        if reason.status != CLOSED and self._elsewhere.lets(reason):
            self._write(Delivery(reason.status, reason))

    def decided(
        self, webhook: Webhook, room: RoomIdentity | None, queued_at: float | None, started: float, decision: Decision
    ) -> None:
        """Log and count a delivery whose webhook is decided, or put on hold, now.

        `started` is when it began, by time.monotonic(); `queued_at` is when it was received or last replayed, in
        seconds since the epoch, None if it was on hold since.
        """
        # By the wall clock, since another process may have received it.
        self._counts.decided(decision.state, None if queued_at is None else time.time() - queued_at)
        if logger.isEnabledFor(logging.INFO) or decision.state is State.FAILED:
            key = None if room is None else room.key
            delivery = Delivery(200, decision.reason, webhook.type, key, decision.id, decision=decision.state)
            delivery.session_id, delivery.seconds = session_id(webhook), monotonic() - started
            self._write(delivery)
        if decision.state is State.UNHANDLED:
            self._show_handler(webhook.type)

    def _sent_elsewhere(self, delivery: Delivery) -> None:
        # Counted apart from refusals: who tries paths out must not put off the hint that the secret is wrong.
        self._elsewhere_in_a_row += 1
        if self._elsewhere.lets(delivery.reason):
            self._write(delivery)
        if self._elsewhere_in_a_row % REFUSED_IN_A_ROW == 0 and self._elsewhere.lets(SENT_ELSEWHERE):
            logger.warning("%d deliveries in a row were %s", self._elsewhere_in_a_row, SENT_ELSEWHERE)

    def _write(self, delivery: Delivery) -> None:
        in_order = delivery.status == 200 and delivery.decision != State.FAILED
        level = logging.INFO if in_order else logging.WARNING
        if not logger.isEnabledFor(level):
            return
        fields = {
            "type": delivery.type,
            "room": delivery.room,
            "webhook_id": delivery.id,
            "session_id": delivery.session_id,
            "replica": self._replica(),
            "answer": delivery.status,
            "decision": delivery.decision,
            "reason": delivery.reason,
            "ms": round(delivery.seconds * 1000, 1),
        }
        if not self._signed:
            fields["unsigned"] = True
        if delivery.skew is not None:
            fields["skew_s"] = round(delivery.skew, 1)
        # Not by `logger.log`, which would look for its caller.
        logger.handle(self._records.make(level, DeliveryLine(fields, _with_skew(delivery)), fields))

    def _show_handler(self, type: str) -> None:
        if type in WEBHOOK_CLASSES and type not in self._shown:
            self._shown.add(type)
            logger.info("%s", hint_at_handler(type), extra={"type": type, "paste": handler_for(type)})


class _Records:
    """Make records as `logger.makeRecord` does, for a fraction of its cost: the place and the process never change."""

    def __init__(self) -> None:
        self._same: dict[int, dict[str, Any]] = {}
        self._began = 0.0

    def make(self, level: int, line: DeliveryLine, fields: dict[str, Any]) -> logging.LogRecord:
        """Return a record that has the fields as attributes."""
        if not _makes_plain_records():
            record = _record(level, line)
            record.__dict__.update(fields)
            return record
        same = self._same.get(level)
        if same is None:
            record = _record(level, line)
            record.__dict__.update(fields)
            # From Python 3.12 on, a record names the task in which it was made.
            record.__dict__.update({"taskName": None} if "taskName" in record.__dict__ else {})
            self._began = record.created - record.relativeCreated / 1000
            self._same[level] = {name: value for name, value in record.__dict__.items() if name not in OPTIONAL}
            return record
        record = logging.LogRecord.__new__(logging.LogRecord)
        # A copy that already has every name does not grow.
        attributes = same.copy()
        attributes.update(fields)
        now = time.time()
        attributes["msg"] = line
        attributes["created"], attributes["msecs"] = now, now % 1 * 1000
        attributes["relativeCreated"] = (now - self._began) * 1000
        record.__dict__ = attributes
        return record


def _record(level: int, line: DeliveryLine) -> logging.LogRecord:
    place = __file__, DeliveryLog._write.__code__.co_firstlineno
    return logger.makeRecord(logger.name, level, *place, line, (), None, "_write")


def _makes_plain_records() -> bool:
    """Return False if the program has a record factory or a class of loggers that may add to each record."""
    plain = logging.getLogRecordFactory() is logging.LogRecord
    return plain and type(logger).makeRecord is logging.Logger.makeRecord


class _OnceASecond:
    """Pass each text at most once a second, and at most so many texts a second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._said: dict[str, float] = {}

    def lets(self, text: str) -> bool:
        """Return True if the text may be logged now."""
        a_second_ago = monotonic() - 1
        if len(self._said) >= self._most:
            self._said = {said: at for said, at in self._said.items() if at > a_second_ago}
        if len(self._said) >= self._most or self._said.get(text, a_second_ago) > a_second_ago:
            return False
        self._said[text] = a_second_ago + 1
        return True


def hint_for(delivery: Delivery) -> str | None:
    """Return what a refused delivery is like, and what may be done about it, where that can be told."""
    if delivery.skew is not None:
        return CLOCK_HINT.format(skew=delivery.skew)
    return next((hint for reason, hint in HINTS.items() if delivery.reason.startswith(reason)), None)


def session_id(webhook: Webhook) -> str | None:
    """Return the id of a webhook's room session, None if it names none."""
    return getattr(webhook.data, "room_session_id", None)


def hint_at_handler(type: str) -> str:
    """Return one line that names the handler that a webhook type lacks."""
    purpose, decorator = ("have an assistant join", "when") if type in ANSWERS else ("hear of it", "on")
    return f'nothing handles {type} yet; to {purpose}, add @trigger.{decorator}("{type}") to a function'


def handler_for(type: str) -> str:
    """Return the handler that a webhook type lacks, ready to paste."""
    class_name, answer = WEBHOOK_CLASSES[type].__name__, ANSWERS.get(type, "")
    imports = f"{class_name}, is_human" if "is_human" in answer else class_name
    name = type.replace(".", "_").lower()
    handler = PREDICATE if answer else LISTENER
    return handler.format(type=type, imports=imports, name=name, class_name=class_name, answer=answer).rstrip()


def _with_skew(delivery: Delivery) -> str:
    if delivery.skew is None:
        return delivery.reason
    return f"{delivery.reason}, its time is {delivery.skew:+.0f} s from ours"


def _on_one_line(text: str) -> str:
    return printable(" ".join(text.split()))
