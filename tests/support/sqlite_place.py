"""A SQLite file as the place of a store."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.clock import JumpingClock
from tests.support.place import TTL, Place
from whereby_trigger.store import Store
from whereby_trigger.store.sqlite import SqliteStore


async def crash(store: SqliteStore) -> None:
    """Leave a replica of this process as a kill would: nothing finished, nothing released."""
    writing, store._writing = store._writing, None
    assert writing is not None
    writing.life.die()
    await writing.writer.close(10)


class SqlitePlace(Place):
    takeover_within = 0.0

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/webhooks.db"
        self.clock = JumpingClock(standing=True)

    def replica(self) -> Store:
        return SqliteStore(self.url, TTL, self.clock, self.clock.now)

    def before_the_first(self) -> Store:
        return self.replica()

    async def crash(self, store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await crash(store)

    async def forget(self, store: Store) -> None:
        await self.crash(store)
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("DELETE FROM replicas WHERE id = ?", (store.replica,))

    async def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(statement.format(rooms="rooms", runs="runs"))


@contextmanager
def sqlite_place(folder: Path) -> Iterator[Place]:
    yield SqlitePlace(folder)
