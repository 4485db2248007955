"""The log of deliveries: one line for each, with its answer and what was decided, and the hints that go with them."""

import logging
import time

from whereby_trigger.decide import Queued
from whereby_trigger.receive import Delivery
from whereby_trigger.store import Decision, State
from whereby_trigger.webhook import ROOM_TYPES, WEBHOOK_CLASSES

logger = logging.getLogger("whereby_trigger.deliveries")

FORGED_IN_A_ROW = 3

FORGERY_HINT = (
    "{count} deliveries in a row had a wrong signature: is WHEREBY_WEBHOOK_SECRET the secret that Whereby's dashboard "
    "shows for this webhook (Configure, Webhooks)?"
)
CLOCK_HINT = (
    "{count} deliveries in a row were signed {skew:+.0f} s from this machine's time: set its clock, or raise tolerance="
)

HANDLER = """\
nothing handles {type} yet; to handle it, paste

@trigger.{decorator}("{type}")
{define} {name}(webhook: {class_name}) -> {returns}:
    {body}
"""


class DeliveryLog:
    """Log each delivery once: when it is refused or a duplicate at its answer, else when it is decided."""

    def __init__(self) -> None:
        self._refused_in_a_row = 0
        self._shown: set[str] = set()

    def answered(self, delivery: Delivery) -> None:
        """Log a delivery that no decision follows."""
        _log(delivery, "")
        if delivery.status != 401:
            self._refused_in_a_row = 0
            return
        self._refused_in_a_row += 1
        if self._refused_in_a_row % FORGED_IN_A_ROW == 0:
            hint = FORGERY_HINT if delivery.skew is None else CLOCK_HINT
            logger.warning("%s", hint.format(count=self._refused_in_a_row, skew=delivery.skew))

    def accepted(self) -> None:
        """Note that a delivery was let in."""
        self._refused_in_a_row = 0

    def decided(self, queued: Queued, decision: Decision) -> None:
        """Log a delivery whose webhook is decided now."""
        if logger.isEnabledFor(logging.INFO):
            room = None if queued.room is None else queued.room.key
            seconds = time.monotonic() - queued.started
            delivery = Delivery(200, decision.reason, queued.webhook.type, room, decision.id, seconds=seconds)
            _log(delivery, decision.state)
        if decision.state is State.UNHANDLED:
            self._show_handler(queued.webhook.type)

    def _show_handler(self, type: str) -> None:
        if type in WEBHOOK_CLASSES and type not in self._shown:
            self._shown.add(type)
            logger.info("%s", handler_for(type))


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


def _log(delivery: Delivery, state: str) -> None:
    level = logging.INFO if delivery.status == 200 else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    fields = {
        "type": delivery.type,
        "room": delivery.room,
        "id": delivery.id,
        "answer": delivery.status,
        "decision": state,
        "reason": delivery.reason,
        "ms": round(delivery.seconds * 1000, 1),
    }
    if delivery.skew is not None:
        fields["skew_s"] = round(delivery.skew, 1)
    line = "%-26s %-36s %s %-11s %s  %s ms"
    room = delivery.room or "-"
    values = (delivery.type or "-", room, delivery.status, state or "-", _with_skew(delivery), fields["ms"])
    logger.log(level, line, *values, extra={"delivery": fields})


def _with_skew(delivery: Delivery) -> str:
    if delivery.skew is None:
        return delivery.reason
    return f"{delivery.reason}, its time is {delivery.skew:+.0f} s from ours"
