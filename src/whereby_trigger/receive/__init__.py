"""The receiving stage: judges a delivery, stores it, and answers."""

from whereby_trigger.receive.address import bind
from whereby_trigger.receive.asgi import Endpoint
from whereby_trigger.receive.intake import Accepted, Rejected, Rules, intake
from whereby_trigger.receive.limits import InFlightLimit
from whereby_trigger.receive.readiness import Readiness
from whereby_trigger.receive.receiver import Receiver

__all__ = [
    "Accepted",
    "Endpoint",
    "InFlightLimit",
    "Readiness",
    "Receiver",
    "Rejected",
    "Rules",
    "bind",
    "intake",
]
