"""Row 34: assistants and predicates hold every thread of the event loop's default executor while a replica drains."""

import asyncio
from pathlib import Path

from reliability.fleet import Fleet
from reliability.row import Result
from reliability.stores import Stores
from whereby_trigger.clock import boot_time
from whereby_trigger.replica import DRAIN_MARGIN
from whereby_trigger.testing import webhook

ROOMS = 36
"""More than the default executor has threads, 32 at the most. Source: Python's docs, ThreadPoolExecutor."""

DRAIN_TIMEOUT, STOP_GRACE = 0.2, 0.5
SLACK = 2.5
"""Seconds for the last words, the end of the process and the wait for both."""

WITHIN = 30.0


async def run(
    folder: Path, stores: Stores, *, drains: int, side_by_side: int = 1, margin: float = DRAIN_MARGIN
) -> Result:
    """Drain `drains` replicas, some at a time, whose user code holds every thread; `margin` is in seconds."""
    gate = asyncio.Semaphore(side_by_side)

    async def drain(number: int) -> tuple[float, int]:
        async with gate:
            where = folder / f"drain-{number}"
            where.mkdir()
            return await _drain(where, stores, margin)

    ends = await asyncio.gather(*map(drain, range(drains)))
    bound = DRAIN_TIMEOUT + STOP_GRACE + margin + SLACK
    problems = [f"ended after {seconds:.1f} s, not {bound:g}" for seconds, _ in ends if seconds > bound]
    problems += [f"exit code {code}, not 0" for _, code in ends if code != 0]
    longest = round(max(seconds for seconds, _ in ends), 1)
    return Result({"drains": drains, "ended after, at most (s)": longest}, problems)


async def _drain(folder: Path, stores: Stores, margin: float) -> tuple[float, int]:
    options = ("--drain-margin", f"{margin}", "--stop-grace", f"{STOP_GRACE}", "--drain-timeout", f"{DRAIN_TIMEOUT}")
    async with Fleet(folder, stores, "--assistant", "crowding", *options) as fleet:
        replica = await fleet.start()
        rooms = [fleet.room() for _ in range(ROOMS)]
        await asyncio.gather(*(fleet.join(room, replica) for room in rooms))
        await fleet.until(rooms, lambda tick: True, WITHIN)
        for room in rooms[:2]:
            await fleet.send(webhook("room.client.left", room=room), replica)
        began = boot_time()
        code = await fleet.drain(replica)
        return boot_time() - began, code
