"""The receiving stage: judges a delivery, stores it, and answers."""

from whereby_trigger.receive.address import bind, reserve
from whereby_trigger.receive.asgi import Endpoint, Readiness
from whereby_trigger.receive.intake import Accepted, Rejected, Rules, intake
from whereby_trigger.receive.receiver import InFlightLimit, Receiver, follow_secret

__all__ = [
    "Accepted",
    "Endpoint",
    "InFlightLimit",
    "Readiness",
    "Receiver",
    "Rejected",
    "Rules",
    "bind",
    "follow_secret",
    "intake",
    "reserve",
]
