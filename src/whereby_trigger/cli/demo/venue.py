"""Where the demo is played: on a new file in each act, or on a store that is given and empty, such as a PostgreSQL."""

from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite import SqliteStore

LEASE = 6.0
"""Seconds for which a replica counts as alive: so short that nobody has to wait long for what a kill leaves behind."""

FLOCK_TELLS = 2.0
"""Seconds for a take-over where a dead process shows at once, by its lock on a file."""

MARGIN = 1.0
"""Seconds for a take-over once the dead replica's lease has run out."""


class Database(Protocol):
    """Be a database that the demo may kill in mid-meeting, and start again."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Venue(Struct, frozen=True):
    """Say on which store to play, None for a new file, and which database, if any, may be killed on the way."""

    store: str | None = None
    database: Database | None = None

    def store_in(self, folder: Path) -> str:
        """Give the URL of the store for an act that has this folder."""
        return self.store or f"sqlite:///{quote(str(folder / 'demo.db'))}"

    @property
    def is_shared(self) -> bool:
        """Whether the store is a database, by whose clock alone a replica's death shows."""
        return self.store is not None and not self.store.startswith("sqlite:")

    @property
    def settings(self) -> dict[str, str]:
        """What the environment of a replica has to say besides the store."""
        return {"WHEREBY_TRIGGER_LEASE_TTL": str(LEASE)} if self.is_shared else {}

    @property
    def takeover_within(self) -> float:
        """Seconds within which what a killed replica had is to be another's."""
        return LEASE + MARGIN if self.is_shared else FLOCK_TELLS


async def venue_at(url: str | None, database: Database | None = None) -> Venue:
    """Make sure of a venue: a store that is given is there, and nothing is in it.

    Raises StoreError where it cannot be used, or is not empty.
    """
    if url is None:
        return Venue()
    await store_for(url).migrate()
    store = store_for(url)
    await store.open_readonly()
    try:
        if await store.find(Query(limit=1)) or await store.rooms(limit=1):
            raise StoreError(
                f"the store {store.location} is not empty, and the demo counts what is in it: name one of its own"
            )
    finally:
        await store.close()
    # The replicas run in a folder of their own, from where a relative path would lead elsewhere.
    return Venue(f"sqlite:///{quote(store.location)}" if isinstance(store, SqliteStore) else url, database)
