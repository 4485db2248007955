"""A replica whose program has forked, as multiprocessing does: the child is not the replica."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.arrivals import NOW
from tests.support.process import Process
from tests.support.replica import ROOT
from whereby_trigger.store.sqlite import SqliteStore

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
]

FORKING = """
import asyncio, os, signal, sys
from whereby_trigger.store import Arrival
from whereby_trigger.store.sqlite import SqliteStore

async def main(url):
    store = SqliteStore(url)
    await store.open(lambda: None)
    await store.add(Arrival("a", "room.client.joined", None, b"{}", 0.0))
    child = os.fork()
    if child == 0:
        signal.pause()
    print("forked", child, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_killed_replicas_webhooks_are_taken_over_though_a_child_of_it_lives(url: str) -> None:
    with Process([sys.executable, "-W", "ignore", "-c", FORKING, url], cwd=ROOT) as parent:
        child = int(parent.line("forked").split()[1])
        heir = SqliteStore(url)
        await heir.open(lambda: None)
        try:
            assert await heir.take_over() == 0
            parent.kill()
            os.kill(child, 0)
            assert await heir.take_over() == 1
        finally:
            await heir.close()
            os.kill(child, signal.SIGKILL)


FORKING_IN_ITS_TURN = """
import os, signal, sys
from pathlib import Path
from whereby_trigger.store.sqlite.lock import FileLock

with FileLock(Path(sys.argv[1] + "-lock")):
    child = os.fork()
    if child:
        print("forked", child, flush=True)
    signal.pause()
"""


async def test_a_replica_that_is_killed_in_its_turn_leaves_the_turn_to_others_though_a_child_of_it_lives(
    url: str, path: Path
) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    program = [sys.executable, "-W", "ignore", "-c", FORKING_IN_ITS_TURN, str(path)]
    with Process(program, cwd=ROOT) as parent:
        child = int(parent.line("forked").split()[1])
        try:
            waiting = asyncio.ensure_future(store.ping(NOW))
            done, _ = await asyncio.wait({waiting}, timeout=0.1)
            assert not done
            parent.kill()
            os.kill(child, 0)
            await asyncio.wait_for(waiting, 5)
        finally:
            os.kill(child, signal.SIGKILL)
    await store.close()
