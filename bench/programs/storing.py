"""PostgreSQL alone: webhooks are stored and decided through the store's methods, with nothing before or after them.

Run as `python -m bench.programs.storing`. Prints webhooks per second as JSON at the end.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec

from bench.bodies import Body, bodies
from whereby_trigger import process
from whereby_trigger.store import Arrival, Decision, State, Store
from whereby_trigger.store.factory import store_for


async def store_and_decide(store: Store, source: Iterator[Body]) -> None:
    """Store and decide one webhook after the other."""
    for body in source:
        now = time.time()
        arrival = Arrival(body.id, "room.client.joined", "acme.whereby.com/room", body.body, now)
        added = await store.add(arrival)
        reason = "predicate people returned True"
        assert await store.decide(Decision(added.seq, body.id, State.FIRED, reason, 1, now))


async def run(url: str, webhooks: int, replicas: int, in_flight: int) -> None:
    source = iter(list(islice(bodies(), webhooks)))
    stores = [store_for(url) for _ in range(replicas)]
    for store in stores:
        await store.open(lambda: None)
    began = time.monotonic()
    await asyncio.gather(*(store_and_decide(stores[number % replicas], source) for number in range(in_flight)))
    print(msgspec.json.encode(webhooks / (time.monotonic() - began)).decode())
    for store in stores:
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.programs.storing")
    parser.add_argument("--store", required=True)
    parser.add_argument("--webhooks", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    options = parser.parse_args()
    process.run(run(options.store, options.webhooks, options.replicas, options.in_flight))


if __name__ == "__main__":
    main()
