"""The log of deliveries: one line for each, with its answer and what was decided, and the hints that go with them."""

import logging
import time

from whereby_trigger.decide import Queued
from whereby_trigger.receive import Delivery
from whereby_trigger.store import Decision, State
from whereby_trigger.webhook import ROOM_TYPES, WEBHOOK_CLASSES

logger = logging.getLogger("whereby_trigger.deliveries")

REFUSED_IN_A_ROW = 3

DASHBOARD = "the secret that Whereby's dashboard shows for this webhook (Configure, Webhooks)"
CLOCK_HINT = "signed {skew:+.0f} s from this machine's time: set its clock, or raise tolerance="
HINTS = {
    "wrong signature": f"signed with another secret: is WHEREBY_WEBHOOK_SECRET {DASHBOARD}?",
    "no signature": "unsigned: either they are not Whereby's, or a proxy on the way drops the header Whereby-Signature",
    "no secret is set": f"not from this machine: to take them, set WHEREBY_WEBHOOK_SECRET to {DASHBOARD}",
}

LINE = "%-26s %-36s %s %-11s %-46s %s ms"
HANDLER = """\
nothing handles {type} yet; to handle it, paste

from whereby_trigger import {class_name}

@trigger.{decorator}("{type}")
{define} {name}(webhook: {class_name}) -> {returns}:
    {body}
"""


class DeliveryLog:
    """Log each delivery once: when it is refused or a duplicate at its answer, else when it is decided."""

    def __init__(self) -> None:
        self._refused = ""
        self._refused_in_a_row = 0
        self._shown: set[str] = set()

    def answered(self, delivery: Delivery) -> None:
        """Log a delivery that no decision follows."""
        _log(delivery)
        if delivery.status != 401:
            self.accepted()
            return
        self._refused_in_a_row = self._refused_in_a_row + 1 if delivery.reason == self._refused else 1
        self._refused = delivery.reason
        hint = hint_for(delivery)
        if hint is not None and self._refused_in_a_row % REFUSED_IN_A_ROW == 0:
            logger.warning("%d deliveries in a row were %s", self._refused_in_a_row, hint)

    def accepted(self) -> None:
        """Note that a delivery was let in."""
        self._refused_in_a_row = 0

    def decided(self, queued: Queued, decision: Decision) -> None:
        """Log a delivery whose webhook is decided now."""
        if logger.isEnabledFor(logging.INFO):
            room = None if queued.room is None else queued.room.key
            delivery = Delivery(200, decision.reason, queued.webhook.type, room, decision.id, decision=decision.state)
            delivery.seconds = time.monotonic() - queued.started
            _log(delivery)
        if decision.state is State.UNHANDLED:
            self._show_handler(queued.webhook.type)

    def _show_handler(self, type: str) -> None:
        if type in WEBHOOK_CLASSES and type not in self._shown:
            self._shown.add(type)
            logger.info("%s", handler_for(type))


def hint_for(delivery: Delivery) -> str | None:
    """Say what a refused delivery is like, and what may be done about it, where that can be told."""
    if delivery.skew is not None:
        return CLOCK_HINT.format(skew=delivery.skew)
    return next((hint for reason, hint in HINTS.items() if delivery.reason.startswith(reason)), None)


def handler_for(type: str) -> str:
    """Write the handler that a webhook type lacks, ready to paste."""
    names_room = type in ROOM_TYPES
    return HANDLER.format(
        type=type,
        decorator="when" if names_room else "on",
        define="def" if names_room else "async def",
        name=type.replace(".", "_").lower(),
        class_name=WEBHOOK_CLASSES[type].__name__,
        returns="bool" if names_room else "None",
        body="return True" if names_room else "...",
    ).rstrip()


def _log(delivery: Delivery) -> None:
    level = logging.INFO if delivery.status == 200 else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    fields = {
        "type": delivery.type,
        "room": delivery.room,
        "id": delivery.id,
        "answer": delivery.status,
        "decision": delivery.decision,
        "reason": delivery.reason,
        "ms": round(delivery.seconds * 1000, 1),
    }
    if delivery.skew is not None:
        fields["skew_s"] = round(delivery.skew, 1)
    type, room = _on_one_line(delivery.type) or "-", delivery.room or "-"
    decision, reason = delivery.decision or "-", _on_one_line(_with_skew(delivery))
    logger.log(level, LINE, type, room, delivery.status, decision, reason, fields["ms"], extra={"delivery": fields})


def _with_skew(delivery: Delivery) -> str:
    if delivery.skew is None:
        return delivery.reason
    return f"{delivery.reason}, its time is {delivery.skew:+.0f} s from ours"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
