"""The stage that receives: judges a delivery, has it stored, and answers."""

from whereby_trigger.receive.address import bind
from whereby_trigger.receive.asgi import Endpoint
from whereby_trigger.receive.intake import Accepted, Rejected, Rules, intake
from whereby_trigger.receive.receiver import Delivery, Host

__all__ = ["Accepted", "Delivery", "Endpoint", "Host", "Rejected", "Rules", "bind", "intake"]
