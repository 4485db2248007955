"""The store on PostgreSQL, which any number of replicas on any number of machines share."""

from whereby_trigger.store.postgres.connection import Services
from whereby_trigger.store.postgres.store import PostgresStore

__all__ = ["PostgresStore", "Services"]
