"""Keep deliveries in a file while the database is unavailable, and move them into it afterwards."""

from whereby_trigger.store.spill.file import SpillContent, SpillFile, read_content
from whereby_trigger.store.spill.store import SpillStore

__all__ = ["SpillContent", "SpillFile", "SpillStore", "read_content"]
