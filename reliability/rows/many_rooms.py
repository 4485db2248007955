"""Rows 11 and 26: many at once: events that reach every replica, and a thousand rooms in one process.

Of the rooms, nothing may remain.
"""

import asyncio
import gc
import itertools
import os
import time
from pathlib import Path

from reliability.fleet import Fleet
from reliability.measures import percentile, resident
from reliability.receiver import SECRET
from reliability.row import Figures, Result, found, some_at_a_time
from reliability.stores import Stores, decided
from whereby_trigger import Session, Trigger, Webhook
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until
from whereby_trigger.testing.sender import Address, Sender

REPLICAS = 3
TICKING_WITHIN = 30.0
AT_ONCE = 20

WITHIN = 120.0
WARM_UP = 200
LOOK = 0.01
LOOKS = 50
LEASE = 12.0
"""Seconds; short, so the lease is renewed during the warm-up: a renewal may open another connection."""

OWN_DESCRIPTORS = 3
"""The store may open a few connections meanwhile; more descriptors than these were left by rooms."""

MEMORY_BOUND = 16 * 1024 * 1024
BEHIND = 150
"""Rooms that start before the first of them ends: the replica is always near its limit."""


async def run_everybody(folder: Path, stores: Stores, *, events: int, rooms: int) -> Result:
    """Deliver one join in each of `events` rooms, each to three replicas at the same moment."""
    async with Fleet(folder, stores, "--assistant", "coroutine") as fleet:
        replicas = [await fleet.start() for _ in range(REPLICAS)]
        names = [fleet.room() for _ in range(rooms)]
        joins = [webhook("room.client.joined", room=names[number % rooms]) for number in range(events)]

        async def deliver(joined: Webhook) -> list[int]:
            return await asyncio.gather(*(fleet.send(joined, replica) for replica in replicas))

        answers = await some_at_a_time(AT_ONCE, deliver, joins)
        ticking = await fleet.ticks.until(names, TICKING_WITHIN)
        records = await decided(fleet.url)
        doubled = fleet.ticks.overlaps()
    refused = sum(answer != 200 for each in answers for answer in each)
    uncounted = sum(record.deliveries != REPLICAS for record in records)
    unfired = sum(record.state != "fired" for record in records)
    problems = [
        *found(refused, "answers were not 200"),
        *([f"{len(records)} rows for {events} events"] if len(records) != events else []),
        *found(uncounted, f"rows do not count {REPLICAS} deliveries"),
        *found(unfired, "webhooks did not fire"),
        *found(rooms - len(ticking), "rooms have no assistant"),
        *found(len(doubled), "overlapping ticks"),
    ]
    figures: Figures = {
        "events": events,
        "deliveries": events * REPLICAS,
        "rows": len(records),
        "rooms": rooms,
        "rooms with an assistant": len(ticking),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


class Rooms:
    """Record when each room's delivery was answered and when its assistant's first line ran."""

    def __init__(self) -> None:
        self.answered: dict[str, float] = {}
        self.began: dict[str, float] = {}
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def assistant(self, session: Session) -> None:
        self.began[session.room_name] = time.monotonic()
        await session.ended
        self.ended.put_nowait(session.room_name)


async def run(folder: Path, stores: Stores, *, rooms: int, max_rooms: int = 200) -> Result:
    """Begin and end `rooms` rooms, some at a time; nothing of them may remain in this process."""
    trigger = Trigger(
        port=0,
        host="127.0.0.1",
        secret=SECRET,
        store=stores.new(folder),
        lease_ttl=LEASE,
        max_rooms=max_rooms,
        webhook_triggers={"room.client.joined": lambda: True},
    )
    noted = Rooms()
    trigger.assistant(noted.assistant)
    async with trigger:
        names = (f"/room-{number}" for number in itertools.count())
        await _begin_and_end(trigger, noted, list(itertools.islice(names, WARM_UP)))
        before = await _footprint()
        measured = list(itertools.islice(names, rooms))
        await _begin_and_end(trigger, noted, measured)
        after = await _footprint()
    delays = [(noted.began[name] - noted.answered[name]) * 1000 for name in measured]
    tasks, descriptors, memory = (now - then for now, then in zip(after, before, strict=True))
    problems = [
        *([f"{tasks} tasks more"] if tasks > 0 else []),
        *([f"{descriptors} file descriptors more"] if descriptors > OWN_DESCRIPTORS else []),
        *([f"{memory} bytes of memory more"] if memory > MEMORY_BOUND else []),
    ]
    figures: Figures = {
        "rooms": rooms,
        "at a time, at most": max_rooms,
        "200 to the assistant's first line, p50 (ms)": round(percentile(delays, 50), 1),
        "200 to the assistant's first line, p99 (ms)": round(percentile(delays, 99), 1),
        "tasks more": tasks,
        "file descriptors more": descriptors,
        "memory more (MiB)": round(memory / 2**20, 1),
    }
    return Result(figures, problems)


async def _begin_and_end(trigger: Trigger, noted: Rooms, names: list[str]) -> None:
    sender = Sender(Address.local(trigger.port), SECRET)

    async def all_ended() -> bool:
        return all(room.state == "ended" for room in await trigger.list_assistants())

    try:
        async with asyncio.timeout(WITHIN):
            for number, name in enumerate(names):
                await _send(sender, "room.client.joined", name)
                noted.answered[name] = time.monotonic()
                if number >= BEHIND:
                    await _end(sender, noted, names[number - BEHIND])
            for name in names[-BEHIND:]:
                await _end(sender, noted, name)
            for _ in names:
                await noted.ended.get()
            await until(all_ended, WITHIN)
    finally:
        sender.close()


async def _end(sender: Sender, noted: Rooms, name: str) -> None:
    """End a session once its assistant is there: one that still waits would end before it starts."""
    await until(lambda: name in noted.began, WITHIN)
    await _send(sender, "room.session.ended", name)


async def _send(sender: Sender, type: str, room: str) -> None:
    sent = webhook(type, room=room, room_session_id=f"session of {room}")
    assert (await sender.deliver(sent.raw, retries=0))[-1].status == 200


async def _footprint() -> tuple[int, int, int]:
    """Return the lasting tasks and descriptors, and the memory: what comes and goes is missing from some look."""
    gc.collect()
    tasks, descriptors = [], []
    for _ in range(LOOKS):
        await asyncio.sleep(LOOK)
        tasks.append(len(asyncio.all_tasks()))
        descriptors.append(len(os.listdir("/proc/self/fd")))
    return min(tasks), min(descriptors), resident(os.getpid())
