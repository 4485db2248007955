"""The stage that receives: judges a delivery, has it stored, and answers."""

from whereby_trigger.receive.edge import Delivery, Edge, Host
from whereby_trigger.receive.intake import Accepted, Rejected, Rules, intake
from whereby_trigger.receive.server import SHUTDOWN_WITHIN, Server, bind

__all__ = ["SHUTDOWN_WITHIN", "Accepted", "Delivery", "Edge", "Host", "Rejected", "Rules", "Server", "bind", "intake"]
