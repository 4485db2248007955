"""The store on SQLite."""

from whereby_trigger.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
