"""Row 11: each event reaches every replica at the same time."""

import asyncio
from pathlib import Path

from reliability.fleet import Fleet
from reliability.row import Result
from reliability.stores import Stores, decided
from reliability.ticks import overlaps
from whereby_trigger.testing import webhook

REPLICAS = 3
WITHIN = 30.0
AT_ONCE = 20


async def run(folder: Path, stores: Stores, *, events: int, rooms: int) -> Result:
    """Deliver one join in each of `events` rooms, each to three replicas at the same moment."""
    async with Fleet(folder, stores, "--assistant", "coroutine") as fleet:
        replicas = [await fleet.start() for _ in range(REPLICAS)]
        names = [fleet.room() for _ in range(rooms)]
        joins = [webhook("room.client.joined", room=names[number % rooms]) for number in range(events)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def deliver(number: int) -> list[int]:
            async with gate:
                return await asyncio.gather(*(fleet.send(joins[number], replica) for replica in replicas))

        answers = await asyncio.gather(*map(deliver, range(events)))
        ticking = await fleet.until(names, lambda tick: True, WITHIN)
        records = await decided(fleet.url)
        doubled = overlaps(fleet.ticks.all)
    refused = sum(answer != 200 for each in answers for answer in each)
    uncounted = sum(record.deliveries != REPLICAS for record in records)
    unfired = sum(record.state != "fired" for record in records)
    problems = [
        *([f"{refused} answers were not 200"] if refused else []),
        *([f"{len(records)} rows for {events} events"] if len(records) != events else []),
        *([f"{uncounted} rows do not count {REPLICAS} deliveries"] if uncounted else []),
        *([f"{unfired} webhooks did not fire"] if unfired else []),
        *([f"{rooms - len(ticking)} rooms have no assistant"] if len(ticking) < rooms else []),
        *([f"{len(doubled)} overlapping ticks"] if doubled else []),
    ]
    figures: dict[str, int | float | str] = {
        "events": events,
        "deliveries": events * REPLICAS,
        "rows": len(records),
        "rooms": rooms,
        "rooms with an assistant": len(ticking),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)
