"""Row 37: replicas that hold webhooks are killed with -9 or drained, again and again."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from reliability.checker import Emission
from reliability.load import send
from reliability.measures import percentile
from reliability.receivers import Receiver, Receivers
from reliability.row import Figures, Result, some_at_a_time
from reliability.stores import Stores, View, viewing
from whereby_trigger.store import UNDECIDED, Record, State
from whereby_trigger.testing import webhook
from whereby_trigger.testing.program import until

REPLICAS = 3
LIVING = 1.0
"""Seconds after which a hold of a living replica must have fired at the latest."""

EARLY = 0.05
"""Seconds by which the clocks of the store and of a listener may differ."""

AT_ONCE = 20
CHANGED = 4
"""In every n-th room somebody leaves while its webhook is held, and its predicate is asked again."""

OVER_WITHIN = 30.0
LOOK = 0.2
SHOWN = 3


async def run(
    folder: Path, stores: Stores, *, webhooks: int, deaths: int, hold: float, bound: float, lease: float
) -> Result:
    """Deliver webhooks that three replicas hold, while killing or draining one replica after the other.

    Each must fire once, at most `bound` seconds after it was due or after the last death before that; a hold that its
    first replica fires, within LIVING seconds.
    """
    chance = random.Random(1)
    options = ("--hold", f"{hold:g}", "--lease-ttl", f"{lease:g}")
    async with Receivers(stores.new(folder), folder / "emissions", options=options) as receivers:
        holders = Holders(receivers, chance)
        await asyncio.gather(*(holders.start() for _ in range(REPLICAS)))
        died_at: list[float] = []
        for death in range(deaths):
            share = webhooks // deaths + (death < webhooks % deaths)
            await holders.deliver(share)
            await asyncio.sleep(chance.uniform(0, hold / 2))
            died_at.append(await holders.lose(drained=death % 2 == 1))
        async with viewing(receivers.url) as view:
            await _until_all_are_decided(view, hold + bound + OVER_WITHIN)
            records = await view.records()
    return _reckoned(holders.sent_to, records, receivers.emissions(), died_at, bound, deaths)


class Holders:
    """Start, load and lose replicas, and record which life received each webhook."""

    def __init__(self, receivers: Receivers, chance: random.Random) -> None:
        self._receivers = receivers
        self.sent_to: dict[str, int] = {}
        self._chance = chance
        self._alive: dict[int, Receiver] = {}
        self._numbers = 0

    async def start(self) -> None:
        receiver = await self._receivers.start()
        await receiver.listening()
        self._alive[receiver.life] = receiver

    async def deliver(self, count: int) -> None:
        """Deliver `count` more webhooks that are held, each in its own room."""
        numbers = range(self._numbers, self._numbers + count)
        self._numbers += count
        await some_at_a_time(AT_ONCE, self._hold, numbers)

    async def lose(self, *, drained: bool) -> float:
        """Kill or drain a replica, and start another; return when it was gone."""
        life = self._chance.choice(sorted(self._alive))
        receiver = self._alive.pop(life)
        await (receiver.drain() if drained else receiver.kill())
        gone_at = time.time()
        await self.start()
        return gone_at

    async def _hold(self, number: int) -> None:
        room, id = f"/room-{number}", f"held-{number}"
        self.sent_to[id] = await self._send(webhook("room.client.knocked", id=id, room=room).raw)
        if number % CHANGED == 0:
            left = webhook("room.client.left", id=f"left-{number}", room=room, num_clients=number % 7)
            await self._send(left.raw)

    async def _send(self, body: bytes) -> int:
        """Deliver to random replicas until one answers 200; return its life."""
        while True:
            life = self._chance.choice(sorted(self._alive))
            if await send(await self._alive[life].listening(), body) == 200:
                return life


async def _until_all_are_decided(view: View, within: float) -> None:
    async def all_decided() -> bool:
        return all(record.state not in UNDECIDED for record in await view.records())

    if not await until(all_decided, within, LOOK):
        raise TimeoutError(f"webhooks are undecided {within:g} s after the last was delivered")


def _reckoned(
    sent_to: Mapping[str, int],
    records: Sequence[Record],
    emissions: Sequence[Emission],
    died_at: Sequence[float],
    bound: float,
    deaths: int,
) -> Result:
    stored = {record.id: record for record in records}
    heard: dict[str, list[Emission]] = defaultdict(list)
    for emission in emissions:
        heard[emission.id].append(emission)
    lost = [id for id in sent_to if id not in stored or stored[id].state is not State.FIRED or id not in heard]
    twice = [id for id, found in heard.items() if any(b.attempt <= a.attempt for a, b in pairwise(found))]
    late_alive, late, early, stayed, moved = [], [], [], [], []
    for id, life in sent_to.items():
        due_at = stored[id].due_at if id in stored else None
        if due_at is None or id not in heard:
            continue
        fired = heard[id][0]
        before = [at for at in died_at if at <= fired.at]
        since = fired.at - due_at
        if since < -EARLY:
            early.append(id)
        if fired.life == life:
            stayed.append(since)
            late_alive += [id] if since > LIVING else []
        else:
            since = fired.at - max(due_at, *before[-1:])
            moved.append(since)
            late += [id] if since > bound else []
    found = {
        "did not fire": lost,
        "fired twice": twice,
        "fired before they were due": early,
        f"fired more than {LIVING:g} s late on a living replica": late_alive,
        f"fired more than {bound:g} s after they were due, or a replica was gone": late,
    }
    problems = [f"{len(ids)} {what}: {', '.join(ids[:SHOWN])}" for what, ids in found.items() if ids]
    figures: Figures = {
        "held": len(sent_to),
        "kills": (deaths + 1) // 2,
        "drains": deaths // 2,
        "fired by the replica that received it": len(stayed),
        "late there, at most (s)": round(max(stayed, default=0.0), 2),
        "fired by another": len(moved),
        "late there, median (s)": round(percentile(moved, 50), 2) if moved else 0.0,
        "late there, at the latest (s)": round(max(moved, default=0.0), 2),
        "lost": len(lost),
        "fired twice": len(twice),
    }
    return Result(figures, problems)
