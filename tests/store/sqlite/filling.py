"""A replica on a disk that fills up and is freed again; a limit on the size of files stands in for the disk."""

import asyncio
import json
import os
import resource
import sys
import time

from tests.support.arrivals import decision
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Arrival, Store
from whereby_trigger.store.sqlite import SqliteStore

ROOM_LEFT = 1024 * 1024


async def add(store: Store, id: str) -> int:
    return (await store.add(Arrival(id, "", None, os.urandom(50_000), time.time()))).seq


def limit_files(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


async def main(url: str) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    acknowledged, refused, reason = ["first"], 0, ""
    first = await add(store, "first")
    limit_files(ROOM_LEFT)
    for n in range(100):
        try:
            await add(store, f"{n}")
            acknowledged.append(f"{n}")
        except StoreUnavailable as error:
            refused, reason = refused + 1, str(error)
    deciding = asyncio.ensure_future(store.decide(decision(first, "first", reason="x" * ROOM_LEFT)))
    try:
        await store.add(Arrival("too big as well", "", None, os.urandom(ROOM_LEFT), time.time()))
    except StoreUnavailable:
        refused += 1
    assert not deciding.done()
    limit_files(resource.RLIM_INFINITY)
    await add(store, "after")
    acknowledged.append("after")
    assert await deciding
    await store.close()
    print(json.dumps({"acknowledged": acknowledged, "refused": refused, "reason": reason}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
