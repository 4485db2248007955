"""The writer thread, if the lock for its turns fails, or the memory for a look at the file."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path

import pytest

from tests.support.until import eventually
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store import StoreErrors
from whereby_trigger.store.sqlite.connection import connect, make_durable
from whereby_trigger.store.sqlite.journal import Database
from whereby_trigger.store.sqlite.lock import FileLock
from whereby_trigger.store.sqlite.writer import Writer

pytestmark = pytest.mark.anyio


class FailingLock(FileLock):
    """Fail as on a file system without locks left, while `failing`."""

    failing = True
    failed = 0

    def __enter__(self) -> None:
        if self.failing:
            self.failed += 1
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        super().__enter__()


async def test_a_turn_that_cannot_be_had_is_an_outage_and_what_must_be_kept_is_tried_again(path: Path) -> None:
    path.touch()
    turn = FailingLock(path.with_name("lock"))
    connection = connect(path)
    make_durable(connection, path)
    writer = Writer(Database(path, connection), turn, lambda: None, StoreErrors())

    def work(connection: sqlite3.Connection) -> str:
        connection.execute("CREATE TABLE done (x)")
        return "done"

    kept = writer.submit(work, kept=True)
    with pytest.raises(StoreUnavailable, match="takes no writes now"):
        await writer.submit(work)
    await eventually(lambda: turn.failed > 1)
    assert not kept.done()
    turn.failing = False
    assert await asyncio.wait_for(kept, 5) == "done"
    await writer.close(5)


class ShortOfMemory(Database):
    """Raise MemoryError instead of looking at the file while `short` is set, as SQLite may."""

    short = True
    looks = 0

    def warn_if_large(self) -> None:
        if self.short:
            self.looks += 1
            raise MemoryError
        super().warn_if_large()


async def test_the_writer_outlives_a_lack_of_memory_while_it_looks_for_changes(path: Path) -> None:
    path.touch()
    connection = connect(path)
    make_durable(connection, path)
    database = ShortOfMemory(path, connection)
    writer = Writer(database, FileLock(path.with_name("lock")), lambda: None, StoreErrors())
    await eventually(lambda: database.looks > 1)
    database.short = False
    async with asyncio.timeout(5):
        await writer.submit(lambda connection: connection.execute("CREATE TABLE done (x)"))
    await writer.close(5)


class NoMemoryForErrors(StoreErrors):
    """Raise MemoryError at the first error that is noted."""

    short = True

    def note(self, error: StoreError) -> None:
        if self.short:
            self.short = False
            raise MemoryError
        super().note(error)


async def test_the_writer_outlives_a_lack_of_memory_to_say_why_work_failed(path: Path) -> None:
    path.touch()
    connection = connect(path)
    make_durable(connection, path)
    turn = FailingLock(path.with_name("lock"))
    writer = Writer(Database(path, connection), turn, lambda: None, NoMemoryForErrors())
    async with asyncio.timeout(5):
        kept = writer.submit(lambda connection: "done", kept=True)
        with pytest.raises(StoreUnavailable):
            await writer.submit(lambda connection: "done")
        turn.failing = False
        assert await kept == "done"
    await writer.close(5)
