"""The store of the demo: what its replicas need to share it, and how fast they take over on it."""

from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite import SqliteStore

LEASE = 6.0
"""Seconds for which a silent replica counts as alive: short, because the demo waits for it after a kill."""

TAKEOVER_BY_LOCK = 2.0
"""Seconds a takeover may last on a SQLite file: the lock of a dead process is free at once."""

TAKEOVER_MARGIN = 1.0
"""Seconds a takeover may last after the dead replica's lease has expired."""


class DemoStore(Struct, frozen=True):
    """Hold the URL of the store to use, None for a new file in each scenario's folder."""

    url: str | None = None

    def url_in(self, folder: Path) -> str:
        """Return the URL of the store for a scenario that runs in this folder."""
        return self.url or f"sqlite:///{quote(str(folder / 'demo.db'))}"

    @property
    def is_shared(self) -> bool:
        """True if the store is a database server: there, only an expired lease shows that a replica died."""
        return self.url is not None and not self.url.startswith("sqlite:")

    @property
    def settings(self) -> dict[str, str]:
        """The settings that a replica needs besides the store's."""
        return {"LEASE_TTL": str(LEASE)} if self.is_shared else {}

    @property
    def takeover_within(self) -> float:
        """Seconds within which another replica must take over the rooms of a killed one."""
        return LEASE + TAKEOVER_MARGIN if self.is_shared else TAKEOVER_BY_LOCK


async def demo_store_at(url: str | None) -> DemoStore:
    """Prepare the store at a URL, and return it as the demo's store.

    Raises StoreError if it cannot be used or is not empty.
    """
    if url is None:
        return DemoStore()
    await store_for(url).migrate()
    store = store_for(url)
    await store.open_readonly()
    try:
        if await store.find(Query(limit=1)) or await store.rooms(limit=1):
            raise StoreError(
                f"the store {store.location} is not empty, and the demo counts what it holds: name an empty store"
            )
    finally:
        await store.close()
    # The replicas run in another folder: a relative path would name another file there.
    return DemoStore(f"sqlite:///{quote(store.location)}" if isinstance(store, SqliteStore) else url)
