"""Row 19: a thousand sockets that never finish their request, and good traffic beside them."""

import asyncio
from pathlib import Path

from reliability.checker import check, in_words
from reliability.corpus import items
from reliability.load import Load
from reliability.measures import percentile
from reliability.result import Figures, Result
from reliability.slow_sockets import open_slow_sockets
from reliability.stores import Stores
from reliability.trial import trial

CLOSED_WITHIN = 10.0
P99_WITHIN = 0.5
PER_SECOND = 50
GIVE_UP_AFTER = 15.0


async def run(folder: Path, stores: Stores, *, sockets: int) -> Result:
    """Open so many slow sockets, and send good deliveries until the server has closed them all."""
    load = Load(folder, 1, source=items(1), reuse=False)
    async with trial(folder, stores.new(folder), load) as under_load:
        slow = await open_slow_sockets(load.sender.port, sockets)
        try:
            closed = asyncio.gather(*(socket.lasted for socket in slow))
            async with load.going(PER_SECOND):
                await asyncio.wait({closed}, timeout=GIVE_UP_AFTER)
        finally:
            for socket in slow:
                socket.close()
        took = [answer.seconds for answer in load.sender.each]
        evidence = await under_load.evidence()
    lasted = [socket.lasted.result() for socket in slow if socket.lasted.done()]
    problems = in_words(check(evidence))
    if late := [seconds for seconds in lasted if seconds > CLOSED_WITHIN]:
        problems.append(f"{len(late)} slow sockets were closed after more than 10 s, the last after {max(late):.2f} s")
    if len(lasted) < sockets:
        problems.append(f"{sockets - len(lasted)} slow sockets were not closed at all")
    if load.sender.answers.keys() != {200}:
        problems.append(f"good deliveries were answered {dict(load.sender.answers)}")
    if percentile(took, 99) > P99_WITHIN:
        problems.append(f"good traffic took {percentile(took, 99):.3f} s at the 99th percentile")
    figures: Figures = {
        "slow sockets": sockets,
        "closed after (s), first": round(min(lasted, default=0), 2),
        "closed after (s), last": round(max(lasted, default=0), 2),
        "good deliveries": len(took),
        "p99 (ms)": round(percentile(took, 99) * 1000, 1),
        "slowest (ms)": round(max(took) * 1000, 1),
    }
    return Result(figures, problems)
