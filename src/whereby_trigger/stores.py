"""The stores there are: which one a URL names, and the spool before it."""

from typing import TYPE_CHECKING

from whereby_trigger.config import masked, postgres_services
from whereby_trigger.errors import ConfigError
from whereby_trigger.store.spill import Spool
from whereby_trigger.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from whereby_trigger.store.postgres import PostgresStore


def store_for(url: str, lease_ttl: float = 30.0) -> "SqliteStore | PostgresStore":
    """Make the store that a URL names, unopened, for a replica whose lease lasts `lease_ttl` seconds.

    Raises ConfigError.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteStore(url, lease_ttl)
    if scheme in ("postgresql", "postgres"):
        return _postgres(url, lease_ttl)
    raise ConfigError(
        f"store {masked('store', url)!r} is of no known kind: write sqlite:///file.db or postgresql://user@host/database"
    )


def spool_for(spill: str | None, store: str) -> Spool | None:
    """Make the spool, unopened, in which deliveries wait while the store that a URL names is away; None without one.

    Raises ConfigError.
    """
    if spill is None:
        return None
    if store.startswith("sqlite:"):
        raise ConfigError(
            f"spill {spill!r} is for a database that may be away, but store {store!r} is a file on this machine too: "
            "leave spill out, or set it to off"
        )
    return Spool(spill)


def _postgres(url: str, lease_ttl: float) -> "PostgresStore":
    # Its driver is an extra, and nobody on SQLite should wait for its import.
    try:
        from whereby_trigger.store.postgres import PostgresStore, Services
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise ConfigError("a store on PostgreSQL needs its driver: pip install 'whereby-trigger[postgres]'") from None
    return PostgresStore(url, lease_ttl, Services(*postgres_services()))
