"""The stage that receives: judges a delivery, has it stored, and answers."""

from whereby_trigger.receive.address import bind
from whereby_trigger.receive.edge import Delivery, Edge, Host
from whereby_trigger.receive.intake import Accepted, Rejected, Rules, intake

__all__ = ["Accepted", "Delivery", "Edge", "Host", "Rejected", "Rules", "bind", "intake"]
