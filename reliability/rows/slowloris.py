"""Row 19: a thousand sockets that never finish their request, and good traffic beside them."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from reliability.checker import Evidence, check, in_words
from reliability.corpus import Item, items
from reliability.emissions import read_emissions
from reliability.http import Connection
from reliability.ledger import Ledger
from reliability.measures import percentile
from reliability.process import Receivers
from reliability.result import Figures, Result
from reliability.sender import Sender
from reliability.slow_sockets import SlowSocket, open_slow_sockets
from reliability.stores import Stores, viewing

CLOSED_WITHIN = 10.0
P99_WITHIN = 0.5
PER_SECOND = 50
GIVE_UP_AFTER = 15.0


async def run(folder: Path, stores: Stores, *, sockets: int) -> Result:
    """Open so many slow sockets, and send good deliveries until the server has closed them all."""
    url, emissions = stores.new(folder), folder / "emissions"
    receivers, ledger = Receivers(url, emissions), Ledger(folder / "ledger")
    sender, sent, slow = Sender(ledger), dict[str, Item](), list[SlowSocket]()
    try:
        receiver = await receivers.start()
        sender.port = await receiver.listening()
        slow = await open_slow_sockets(sender.port, sockets)
        closed = asyncio.gather(*(socket.lasted for socket in slow))
        took = await _send_until(closed, sender, sent, items(1))
        await receiver.stop()
        async with viewing(url) as view:
            evidence = Evidence(sent, sender.sends, ledger.close(), await view.records(), read_emissions(emissions))
    finally:
        for socket in slow:
            socket.close()
        await receivers.close()
        ledger.close()
    lasted = [socket.lasted.result() for socket in slow if socket.lasted.done()]
    problems = in_words(check(evidence))
    if late := [seconds for seconds in lasted if seconds > CLOSED_WITHIN]:
        problems.append(f"{len(late)} slow sockets were closed after more than 10 s, the last after {max(late):.2f} s")
    if len(lasted) < sockets:
        problems.append(f"{sockets - len(lasted)} slow sockets were not closed at all")
    if sender.answers.keys() != {200}:
        problems.append(f"good deliveries were answered {dict(sender.answers)}")
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


async def _send_until(
    closed: "asyncio.Future[list[float]]", sender: Sender, sent: dict[str, Item], source: Iterator[Item]
) -> list[float]:
    """Send good deliveries at an even pace until the slow sockets are closed; return how long each took."""
    deadline = time.monotonic() + GIVE_UP_AFTER
    deliveries: list[asyncio.Task[float]] = []
    while not closed.done() and time.monotonic() < deadline:
        item = next(source)
        sent[item.id] = item
        deliveries.append(asyncio.create_task(_timed(sender, item)))
        await asyncio.wait({closed}, timeout=1 / PER_SECOND)
    return list(await asyncio.gather(*deliveries))


async def _timed(sender: Sender, item: Item) -> float:
    connection, began = Connection(), time.monotonic()
    try:
        await sender.deliver(item, connection, retries=0)
    finally:
        connection.close()
    return time.monotonic() - began
