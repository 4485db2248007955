"""Row 15: clocks that are wrong by minutes and by a day, from the start or suddenly."""

import math
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from reliability.conditions import Skew
from reliability.fleet import Fleet
from reliability.receivers import Receiver
from reliability.row import Figures, Result, found
from reliability.stores import SqliteStores, Stores
from whereby_trigger.clock import boot_time

LEASE = 6.0
ROOMS = 3
WATCHED = 2 * LEASE
"""Seconds in which nothing may stop because of a clock: a lease that used it would have run out."""

TAKEN_OVER_WITHIN = LEASE + 2.0
LIVE_WITHIN = 30.0


class Dose(Struct, frozen=True):
    """Hold by how many seconds a clock is off, and whether it jumps there in mid-run."""

    seconds: float
    jumps: bool

    def __str__(self) -> str:
        return f"{self.seconds:+g} s, {'a jump' if self.jumps else 'from the start'}"


async def run(folder: Path, stores: Stores, *, offsets: Sequence[float]) -> Result:
    """Set clocks off by each offset, from the start and by a jump; what replicas own must not depend on it.

    On PostgreSQL one of two replicas has a wrong clock; on SQLite both have, since they run on one machine.
    """
    problems: list[str] = []
    stale = assistants = doubled = 0
    delays: list[float] = []
    doses = [Dose(seconds, jump) for jump in (False, True) for seconds in offsets]
    for number, dose in enumerate(doses):
        trial = _Trial(folder / str(number), stores, dose)
        problems += [f"{dose}: {problem}" for problem in await trial.run()]
        stale += trial.stale
        assistants += len(trial.rooms)
        delays += trial.delays
        doubled += len(trial.fleet.ticks.overlaps())
    problems += found(doubled, "overlapping ticks")
    figures: Figures = {
        "clocks put off": len(doses),
        "assistants": assistants,
        "taken over after, at most (s)": round(max(delays, default=math.inf), 2),
        "stale signatures refused": stale,
        "overlaps": doubled,
    }
    return Result(figures, problems)


class _Trial:
    def __init__(self, folder: Path, stores: Stores, dose: Dose) -> None:
        self._dose = dose
        self._one_machine = isinstance(stores, SqliteStores)
        self.fleet = Fleet(folder, stores, "--lease-ttl", f"{LEASE:g}")
        self._skew = Skew(folder)
        self.rooms: set[str] = set()
        self.delays: list[float] = []
        self.stale = 0
        self._problems: list[str] = []

    async def run(self) -> list[str]:
        skew, dose = self._skew, self._dose
        skew.set(0 if dose.jumps else dose.seconds)
        async with self.fleet as fleet:
            other = await fleet.start(env=skew.environment if self._one_machine else None)
            skewed = await fleet.start(env=skew.environment)
            for replica in [other, skewed] * ROOMS:
                await self._join(replica, skewed)
            await fleet.until_live(self.rooms, LIVE_WITHIN)
            since = boot_time()
            skew.set(dose.seconds)
            await self._refuse_stale(skewed)
            await self._watch(since)
            await self._take_over(skewed)
            successor = await fleet.start(env=skew.environment)
            await self._take_over(other)
            await fleet.drain(successor)
        return self._problems

    async def _join(self, replica: Receiver, skewed: Receiver) -> None:
        room = self.fleet.room()
        ahead = self._skew.seconds if replica is skewed or self._one_machine else 0.0
        if (answer := await self.fleet.join(room, replica, ahead=ahead)) != 200:
            self._problems.append(f"a delivery that was signed by the replica's own clock was answered {answer}")
        self.rooms.add(room)

    async def _refuse_stale(self, skewed: Receiver) -> None:
        """Deliver a webhook signed by the right clock, whose timestamp is stale or too new for the wrong clock."""
        if await self.fleet.join(self.fleet.room(), skewed) == 401:
            self.stale += 1
        else:
            self._problems.append("a signature that is stale to this clock was taken")

    async def _watch(self, since: float) -> None:
        """Check that every assistant keeps running."""
        late = boot_time() + WATCHED
        await self.fleet.ticks.until(self.rooms, WATCHED + LIVE_WITHIN, lambda tick: tick.at > late)
        self._problems += self.fleet.ticks.interruptions(self.rooms, since)

    async def _take_over(self, victim: Receiver) -> None:
        """Kill a replica; its rooms must be served by another."""
        left = self.fleet.rooms_of(victim)
        killed_at = boot_time()
        await self.fleet.kill(victim)
        again, _ = await self.fleet.until_elsewhere(left, victim, killed_at, LIVE_WITHIN)
        self.delays += [at - killed_at for at in again.values()]
        late = sum(again.get(room, math.inf) - killed_at > TAKEN_OVER_WITHIN for room in left)
        self._problems += found(late, f"rooms were not taken over within {TAKEN_OVER_WITHIN:g} s")
