"""Row 28, of our own: all faults together. Three replicas under load; replicas are killed, the database restarted."""

import asyncio
import random
from collections import Counter
from pathlib import Path

from reliability.assistants import Ticks, overlaps
from reliability.checker import Rule, check, in_words
from reliability.load import Load
from reliability.receivers import Receiver, ReceiverFailed, Receivers, read_emissions
from reliability.row import Figures, Result
from reliability.rows.kills import TWICE
from reliability.stores import PostgresStores, viewing
from whereby_trigger.clock import boot_time
from whereby_trigger.store import State

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
        self._load.sender.ports = tuple(self._ports.values())


async def run(
    folder: Path,
    stores: PostgresStores,
    *,
    seconds: float,
    rate: float,
    kill_every: float,
    restart_every: float,
    lease: float,
    seed: int = 28,
) -> Result:
    """Deliver at a rate for `seconds` seconds, while replicas die at random and the database is restarted."""
    chance, url, emissions, ticks = (
        random.Random(seed),
        stores.new(folder),
        folder / "emissions",
        Ticks(folder / "ticks"),
    )
    options = ("--ticks", str(ticks.path), "--lease-ttl", f"{lease:g}", "--drain-timeout", "0")
    receivers, load = Receivers(url, emissions, options=options), Load(folder, seed, proxied=True)
    cluster, faults, over = Cluster(receivers, load), Counter[str](), asyncio.Event()

    async def kill_replicas() -> None:
        while not await _sets_within(over, kill_every):
            await cluster.kill_one(chance)
            faults["replicas killed"] += 1

    async def restart_database() -> None:
        while not await _sets_within(over, restart_every):
            await asyncio.to_thread(stores.server.kill if faults["restarts"] % 2 else stores.server.stop)
            await asyncio.to_thread(stores.server.start)
            faults["restarts"] += 1

    try:
        for _ in range(REPLICAS):
            await cluster.start_one()
        async with load.going(rate):
            going = [asyncio.create_task(kill_replicas()), asyncio.create_task(restart_database())]
            await asyncio.wait(going, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
            over.set()
            failed = [error for error in await asyncio.gather(*going, return_exceptions=True) if error]
        async with viewing(url) as view:
            await view.until_decided()
            records = await view.records()
            rooms = {load.items[record.id].room for record in records if record.state is State.FIRED}
            now = boot_time()
            served = await ticks.until(rooms, lambda tick: tick.at > now, SERVED_WITHIN)
            codes = await cluster.stop()
            evidence = load.evidence(
                await view.records(),
                read_emissions(emissions),
                late_takeovers=True,
                recounted=True,
                losses=await view.losses(),
            )
    finally:
        await receivers.close()
        load.close()
    broken, doubled = check(evidence), overlaps(ticks.all)
    unacknowledged = load.items.keys() - evidence.acknowledged.keys()
    problems = [
        *(f"the faults could not be gone on with: {error}" for error in failed),
        *in_words(broken),
        *([f"{len(doubled)} overlapping ticks"] if doubled else []),
        *(f"no assistant in {room}" for room in sorted(rooms - served.keys())),
        *(f"a replica ended with {code}" for code in codes if code),
    ]
    figures: Figures = {
        "seconds": seconds,
        "deliveries a second": rate,
        "replicas killed": faults["replicas killed"],
        "restarts of the database": faults["restarts"],
        "sent": len(load.items),
        "acknowledged": len(evidence.acknowledged),
        "acknowledged lost": len(broken.get(Rule.LOST, ())),
        "sent but never acknowledged": len(unacknowledged),
        "decided twice": sum(len(broken.get(rule, ())) for rule in TWICE),
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
