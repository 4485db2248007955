"""Several of our own processes on one file: servers under load, and the command line beside them."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.arrivals import arrival
from tests.support.process import Process
from tests.support.replica import ROOT
from tests.support.until import eventually
from whereby_trigger.store import Query, State
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

SERVERS = 3
LOOKS = 12


async def look(url: str) -> int:
    """Read what `events list` reads."""
    store = SqliteStore(url)
    await store.open_readonly()
    found = await store.find(Query(limit=20))
    await store.close()
    return len(found)


async def replay(url: str) -> int:
    """Replay as `events replay` does."""
    store = SqliteStore(url)
    await store.open(lambda: None)
    replayed = await store.replay(Query(state=State.FIRED, limit=3), time.time())
    await store.close()
    return len(replayed)


async def test_replicas_that_reach_one_file_by_different_names_know_each_other(tmp_path: Path) -> None:
    shared, release = tmp_path / "shared", tmp_path / "release"
    shared.mkdir()
    release.mkdir()
    (release / "webhooks.db").symlink_to(shared / "webhooks.db")
    stores = [SqliteStore(f"sqlite:///{folder}/webhooks.db", lease_ttl=30) for folder in (release, shared)]
    for store in stores:
        await store.open(lambda: None)
        await store.add(arrival(f"of {store.replica}"))
    for store in stores:
        assert await store.take_over() == 0
        assert await store.renew(30)
    for store in stores:
        await store.close()


async def test_servers_and_the_command_line_share_a_file_under_load_and_nobody_starves(url: str, path: Path) -> None:
    slowest, replayed = 0.0, 0
    with ExitStack() as running:
        servers = [
            running.enter_context(
                Process([sys.executable, "-m", "tests.store.sqlite.busy", url, f"server {n}"], cwd=ROOT)
            )
            for n in range(SERVERS)
        ]
        for server in servers:
            server.line("busy")
        await eventually(lambda: look(url))
        for _ in range(LOOKS):
            started = time.monotonic()
            assert await look(url) == 20
            replayed += await replay(url)
            slowest = max(slowest, time.monotonic() - started)
        assert [server.stop() for server in servers] == [0] * SERVERS
        tallies = [json.loads(server.output.splitlines()[-1]) for server in servers]
    total = sum(tally["stored"] for tally in tallies)
    assert replayed == 3 * LOOKS
    assert slowest < 2
    for tally in tallies:
        assert tally["errors"] == []
        assert tally["slowest"] < 2
        assert tally["stored"] > total / SERVERS / 4
    store = SqliteStore(url)
    await store.open_readonly()
    stored = await store.find(Query())
    await store.close()
    assert len(stored) == total
    assert sum(found.state is State.PENDING for found in stored) == replayed
    assert {found.name for found in path.parent.iterdir()} == {"webhooks.db", "webhooks.db-lock"}


async def test_a_replica_is_told_of_what_others_write_and_not_of_its_own_writes(url: str) -> None:
    told = {"writer": 0, "other": 0}

    def count(name: str) -> Callable[[], None]:
        return lambda: told.update({name: told[name] + 1})

    writer, other = SqliteStore(url), SqliteStore(url)
    await writer.open(count("writer"))
    await other.open(count("other"))
    await eventually(lambda: told["writer"])
    entered = told["writer"]
    for n in range(3):
        told["other"] = 0
        await writer.add(arrival(str(n)))
        await eventually(lambda: told["other"])
    assert told["writer"] == entered
    await other.close()
    await writer.close()


async def test_a_store_that_a_process_opens_twice_is_not_taken_for_closed_by_another(url: str, path: Path) -> None:
    """A process that believes it is the last to close a database removes its journal."""
    first, second = SqliteStore(url), SqliteStore(url)
    await first.open(lambda: None)
    await first.add(arrival("a"))
    await second.open(lambda: None)
    look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM version'); c.close()"
    looking = await asyncio.create_subprocess_exec(sys.executable, "-c", look, path)
    assert await looking.wait() == 0
    assert path.with_name("webhooks.db-wal").exists()
    await second.close()
    await first.close()
