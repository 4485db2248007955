"""The store on PostgreSQL, shared by any number of replicas on any number of machines."""

from whereby_trigger.store.postgres.address import Services
from whereby_trigger.store.postgres.store import PostgresStore

__all__ = ["PostgresStore", "Services"]
