"""The stores there are: which one a URL names."""

from whereby_trigger.config import masked
from whereby_trigger.errors import ConfigError
from whereby_trigger.store import Store
from whereby_trigger.store.sqlite import SqliteStore


def store_for(url: str, lease_ttl: float = 30.0) -> Store:
    """Make the store that a URL names, unopened, for a replica whose lease lasts `lease_ttl` seconds.

    Raises ConfigError.
    """
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteStore(url, lease_ttl)
    raise ConfigError(f"store {masked('store', url)!r} is of no known kind: write sqlite:///file.db")
