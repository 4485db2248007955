"""A replica in a separate process, to be killed: `python -m tests.support.replica URL ID...` stores and waits.

Without an id it takes the waiting rooms.
"""

import asyncio
import sys
import time
from pathlib import Path

from tests.support.process import Process
from whereby_trigger.store import Arrival
from whereby_trigger.store.factory import store_for

ROOT = Path(__file__).parents[2]


def replica_that_stores(url: str, *ids: str) -> Process:
    """Start a replica that stores these ids, prints `stored` and its own id, and keeps running."""
    return Process([sys.executable, "-m", "tests.support.replica", url, *ids], cwd=ROOT)


def replica_that_takes(url: str) -> Process:
    """Start a replica that takes every waiting room, prints `took` and its own id, and keeps running."""
    return Process([sys.executable, "-m", "tests.support.replica", url], cwd=ROOT)


async def main(url: str, *ids: str) -> None:
    store = store_for(url)
    await store.open(lambda: None)
    for id in ids:
        await store.add(Arrival(id, "room.client.joined", "acme.whereby.com/visit-1", b"{}", time.time()))
    taken = [] if ids else await store.take(100)
    print("took" if taken else "stored", store.replica, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
