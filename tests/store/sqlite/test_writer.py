"""The writer thread, if the lock for its turns fails."""

import asyncio
import errno
import os
import sqlite3
from pathlib import Path

import pytest

from tests.support.until import eventually
from whereby_trigger.errors import StoreUnavailable
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
