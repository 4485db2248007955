"""How long each page of the inspector takes over a long-used store, how much CPU, and how much it weighs.

The CPU is that of this process: of the pages and of SQLite, and not of PostgreSQL. It says more on a busy machine.

Run it by `python -m bench.inspector`, with `--webhooks` and `--stores` for less than all of it.
"""

import argparse
import statistics
import time
from urllib.parse import quote

import httpx

from bench.stores import EACH, POSTGRES, SQLITE, fill, fill_rooms, fill_runs, on_each_store
from whereby_trigger import Trigger
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.store import Query

ROUNDS = 7
ROOMS = 10_000
RUNS = 40_000


async def measure(url: str, kind: str, webhooks: int) -> None:
    """Fill a store, and print for each page the median and the slowest of some answers, and its size."""
    await fill(url, webhooks, ROOMS)
    entries = RUNS // EACH
    await fill_rooms(url, entries)
    await fill_runs(url)
    async with store_to_read(url) as store:
        newest, *_ = await store.find(Query(limit=1))
    room = quote(newest.room or "", safe="")
    trigger = Trigger(store=url)
    transport = httpx.ASGITransport(trigger.inspector, client=("127.0.0.1", 1))
    print(f"{kind}: {webhooks:,} webhooks, {entries:,} entries of {ROOMS:,} rooms")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
        for path in (
            "/",
            "/?room=%2Froom-000042",
            "/?state=skipped&type=room.client.left&since=7d",
            f"/?room={room}&since=24h",
            "/rooms",
            f"/room?key={room}",
            "/room?key=acme.whereby.com%2Froom-000042&since=7d",
            f"/webhook?id={quote(newest.id, safe='')}",
            "/refusals",
            "/health",
        ):
            times, used = [], []
            for _ in range(ROUNDS):
                begun, began = time.monotonic(), time.process_time()
                answer = await client.get(path)
                times.append(1000 * (time.monotonic() - begun))
                used.append(1000 * (time.process_time() - began))
            median, slowest, cpu = statistics.median(times), max(times), statistics.median(used)
            told = f"{median:7.1f} ms, at most {slowest:7.1f}, CPU {cpu:6.1f}  {len(answer.content) / 1000:6.1f} kB"
            print(f"  {told}  {answer.status_code}  {path}", flush=True)
    await trigger.inspector.close()


def main() -> None:
    """Measure both stores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--webhooks", type=int, default=1_000_000)
    parser.add_argument("--stores", default=f"{SQLITE},{POSTGRES}")
    asked = parser.parse_args()
    on_each_store(asked.stores, lambda url, kind: measure(url, kind, asked.webhooks))


if __name__ == "__main__":
    main()
