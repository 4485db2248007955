"""Where deliveries wait that the database does not take: a file, and the way from it into the database."""

from whereby_trigger.store.spill.opening import Content, look_into
from whereby_trigger.store.spill.spill import Spill
from whereby_trigger.store.spill.spool import Spool

__all__ = ["Content", "Spill", "Spool", "look_into"]
