"""Where deliveries wait that the database does not take: a file, and the way from it into the database."""

from whereby_trigger.store.spill.file import SpillContent, SpillFile, read_content
from whereby_trigger.store.spill.store import SpillStore

__all__ = ["SpillContent", "SpillFile", "SpillStore", "read_content"]
