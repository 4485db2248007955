"""Row 28, of our own: all faults together. Three replicas under load; replicas are killed, the database restarted."""

import asyncio
import random
from collections import Counter
from pathlib import Path

from reliability.assistants import Ticks
from reliability.checker import TWICE, Rule, check, examples, in_words
from reliability.load import Load
from reliability.receivers import Receiver, ReceiverFailed, Receivers, rooms_served
from reliability.row import Figures, Result, found
from reliability.stores import PostgresStores, View
from whereby_trigger.clock import boot_time

REPLICAS = 3
SERVED_WITHIN = 90.0
START_WITHIN = 30.0


class Cluster:
    """Hold the replicas behind a load balancer that always knows which of them are up."""

    def __init__(self, receivers: Receivers, load: Load) -> None:
        self._receivers = receivers
        self._load = load
        self._ports: dict[Receiver, int] = {}

    async def start_one(self) -> None:
        """Start a replica, and again if the database is away just then, as a service manager does."""
        began = boot_time()
        while True:
            receiver = await self._receivers.start()
            try:
                self._ports[receiver] = await receiver.listening()
            except ReceiverFailed:
                if boot_time() > began + START_WITHIN:
                    raise
            else:
                return self._balance()

    async def kill_one(self, chance: random.Random) -> None:
        """Kill a replica, and start another in its place."""
        victim = chance.choice(list(self._ports))
        del self._ports[victim]
        await victim.kill()
        self._balance()
        await self.start_one()

    async def stop(self) -> list[int]:
        """Drain all replicas; return their exit codes."""
        return [await receiver.stop() for receiver in self._ports]

    def _balance(self) -> None:
        self._load.ports = tuple(self._ports.values())


async def run(
    folder: Path,
    stores: PostgresStores,
    *,
    seconds: float,
    rate: float,
    kill_every: float,
    restart_every: float,
    lease: float,
) -> Result:
    """Deliver at a rate for `seconds` seconds, while replicas die at random and the database is restarted."""
    chance, url = random.Random(28), stores.new(folder)
    load, ticks = Load(folder, seed=28, proxied=True), Ticks(folder / "ticks")
    options = ("--ticks", str(ticks.path), "--lease-ttl", f"{lease:g}", "--drain-timeout", "0")
    receivers = Receivers(url, folder / "emissions", options=options)
    cluster, faults, over = Cluster(receivers, load), Counter[str](), asyncio.Event()
    rooms, served, codes = set[str](), set[str](), list[int]()

    async def kill_replicas() -> None:
        while not await _sets_within(over, kill_every):
            await cluster.kill_one(chance)
            faults["replicas killed"] += 1

    async def restart_database() -> None:
        while not await _sets_within(over, restart_every):
            await asyncio.to_thread(stores.server.kill if faults["restarts"] % 2 else stores.server.stop)
            await asyncio.to_thread(stores.server.start)
            faults["restarts"] += 1

    async def end(view: View) -> None:
        nonlocal rooms, served, codes
        rooms, served = await rooms_served(view, load, ticks, SERVED_WITHIN)
        codes = await cluster.stop()

    try:
        for _ in range(REPLICAS):
            await cluster.start_one()
        async with load.going(rate):
            going = [asyncio.create_task(kill_replicas()), asyncio.create_task(restart_database())]
            await asyncio.wait(going, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            over.set()
            failed = [error for error in await asyncio.gather(*going, return_exceptions=True) if error]
        evidence = await receivers.evidence(load, end, late_takeovers=True, recounted=True)
    finally:
        await receivers.close()
        load.close()
    broken, doubled = check(evidence), ticks.overlaps()
    unacknowledged = load.items.keys() - evidence.acknowledged.keys()
    problems = [
        *(f"the faults could not be gone on with: {error}" for error in failed),
        *in_words(broken),
        *found(len(doubled), "overlapping ticks"),
        *(f"no assistant in {room}" for room in sorted(rooms - served)),
        *(f"a replica ended with {code}" for code in codes if code),
    ]
    figures: Figures = {
        "seconds": seconds,
        "deliveries a second": rate,
        "replicas killed": faults["replicas killed"],
        "restarts of the database": faults["restarts"],
        "sent": len(load.items),
        "acknowledged": len(evidence.acknowledged),
        "acknowledged lost": examples(broken, Rule.LOST),
        "sent but never acknowledged": len(unacknowledged),
        "decided twice": examples(broken, *TWICE),
        "rooms": len(rooms),
        "rooms served in the end": len(served),
        "assistants": len({(tick.room, tick.assistant) for tick in ticks.all}),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


async def _sets_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
