"""The stage that receives: judges a delivery, has it stored, and answers."""

from whereby_trigger.receive.address import bind
from whereby_trigger.receive.edge import Edge
from whereby_trigger.receive.intake import Accepted, Rejected, Rules, intake
from whereby_trigger.receive.reception import Delivery, Host

__all__ = ["Accepted", "Delivery", "Edge", "Host", "Rejected", "Rules", "bind", "intake"]
