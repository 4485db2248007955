"""A server's load on a file: twenty concurrent deliveries, each decided, until SIGTERM; then a tally."""

import asyncio
import json
import signal
import sys
import time

from tests.support.arrivals import decision
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Arrival, Store
from whereby_trigger.store.sqlite import SqliteStore

AT_A_TIME = 20


class Tally:
    """Count what was stored and the longest wait, in seconds."""

    stored = 0
    slowest = 0.0
    errors: list[str]

    def __init__(self) -> None:
        self.errors = []


async def deliver(store: Store, name: str, tally: Tally, ended: asyncio.Event) -> None:
    while not ended.is_set():
        started = time.monotonic()
        try:
            id = f"{name}-{tally.stored}"
            tally.stored += 1
            added = await store.add(Arrival(id, "room.client.joined", None, b"x" * 700, time.time()))
            assert await store.decide(decision(added.seq, id))
        except StoreError as error:
            tally.errors.append(str(error))
        tally.slowest = max(tally.slowest, time.monotonic() - started)


async def main(url: str, name: str) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    tally, ended = Tally(), asyncio.Event()
    delivering = [asyncio.create_task(deliver(store, name, tally, ended)) for _ in range(AT_A_TIME)]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("busy", flush=True)
    await asyncio.gather(*delivering)
    await store.close()
    print(json.dumps({"stored": tally.stored, "slowest": tally.slowest, "errors": tally.errors}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
