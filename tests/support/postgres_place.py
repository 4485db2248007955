"""A PostgreSQL database as the place of a store; its clock's time is in a file, for tests to write."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.support.clock import JumpingClock
from tests.support.place import TTL, Place
from tests.support.postgres import Server, database_of, hand_over, shared_server
from whereby_trigger.store import Store
from whereby_trigger.store.postgres import PostgresStore


class DatabaseClock(JumpingClock):
    """Show the time to a database, in a file that its server reads."""

    def __init__(self, file: Path) -> None:
        super().__init__(standing=True)
        self._file = file
        self._show()

    def jump(self, seconds: float) -> None:
        super().jump(seconds)
        self._show()

    def catch_up(self) -> None:
        super().catch_up()
        self._show()

    def _show(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(repr(self.now()), encoding="ascii")
        hand_over(new)
        os.replace(new, self._file)


class PostgresPlace(Place):
    takeover_within = TTL

    def __init__(self, url: str, clock: JumpingClock, through: Callable[[str], str] = str) -> None:
        self.url = through(url)
        self.clock = clock
        self._through = through

    def replica(self) -> Store:
        return PostgresStore(self.url, TTL)

    def before_the_first(self) -> Store:
        return PostgresStore(self._through(shared_server().create_database()), TTL)

    async def crash(self, store: Store) -> None:
        assert isinstance(store, PostgresStore)
        writing, store._writing = store._writing, None
        assert writing is not None
        writing._polling.cancel()
        for lane in writing.writers.values():
            await lane.close(0)

    async def forget(self, store: Store) -> None:
        await self.crash(store)
        delete = f"DELETE FROM whereby_trigger.replicas WHERE id = '{store.replica}'"
        shared_server().run(delete, database_of(self.url))

    async def execute(self, statement: str) -> None:
        tables = {table: f"whereby_trigger.{table}" for table in ("rooms", "runs")}
        shared_server().run(statement.format(**tables), database_of(self.url.partition("?")[0]))


@contextmanager
def postgres_place(_: Path, through: Callable[[str], str] = str) -> Iterator[Place]:
    """Create a database for one test; `through` returns the URL by which its replicas reach it."""
    server = shared_server()
    server.revive()
    url = server.create_database(template=_template(server))
    clock = server.folder / url.rpartition("/")[2]
    try:
        yield PostgresPlace(url, DatabaseClock(clock), through)
    finally:
        clock.unlink()
        server.be_done_with_databases()


@cache
def _template(server: Server) -> str:
    """Create a template database with the schema, whose clock reads a file with the database's name."""
    name = "place"
    server.run(f"CREATE DATABASE {name} TEMPLATE template0")
    asyncio.run(PostgresStore(server.url(name)).migrate())
    server.run(
        "CREATE OR REPLACE FUNCTION whereby_trigger.clock() RETURNS double precision LANGUAGE sql VOLATILE "
        f"AS $$ SELECT pg_read_file('{server.folder}/' || current_database())::double precision $$",
        name,
    )
    return name
