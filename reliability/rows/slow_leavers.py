"""Row 30: a replica is killed with -9, alone or with its guards, while its assistants are slow to leave."""

import os
import signal
from pathlib import Path

from reliability.fleet import Fleet, family
from reliability.measures import percentile
from reliability.process import Receiver
from reliability.row import Result
from reliability.stores import Stores
from reliability.ticks import overlaps
from whereby_trigger.clock import boot_time

WITHIN = 20.0
AFTER_THE_LAST = 2.0
"""Seconds after the last tick of the dead replica's assistant by which another must tick."""


async def run(folder: Path, stores: Stores, *, kills: int, assistants: int, lease: float = 30.0) -> Result:
    """Kill `kills` replicas, each with `assistants` assistants, each time starting a new one; one other keeps running.

    A new tick may come after the lease's end only if the lease is shorter than WITHIN.
    """
    options = ("--assistant", "slow", "--lease-ttl", f"{lease:g}")
    problems: list[str] = []
    delays: list[float] = []
    lasted: list[float] = []
    async with Fleet(folder, stores, *options) as fleet:
        for _ in range(2):
            await fleet.start()
        for number in range(kills):
            victim = await _loaded(fleet, assistants)
            left = fleet.rooms_of(victim)
            killed_at = boot_time()
            await _kill(fleet, victim, with_guards=number % 2 == 1)
            await fleet.start()
            again = await fleet.until(left, lambda tick: tick.at > killed_at and tick.host != victim.pid, WITHIN)  # noqa: B023
            problems += [f"no assistant came back to {room}" for room in left - again.keys()]
            # This cannot be told for a single room: the replica counts as dead when all its assistants have left.
            last = max(tick.at for tick in fleet.ticks.all if tick.host == victim.pid)
            lasted.append(last - killed_at)
            delays += [at - last for at in again.values()]
            by = max(last + AFTER_THE_LAST, killed_at + lease + 1 if lease < WITHIN else 0)
            late = [room for room, at in again.items() if at > by]
            problems += [f"{room} was served again {again[room] - last:.2f} s after the last left" for room in late]
        doubled = overlaps(fleet.ticks.all)
    if doubled:
        problems.append(f"{len(doubled)} ticks of an assistant that another had followed")
    figures: dict[str, int | float | str] = {
        "kills": kills,
        "of these with the guards": kills // 2,
        "assistants started again": len(delays),
        "the last left after the kill, at most (s)": round(max(lasted), 2),
        "started again after the last had left, median (s)": round(percentile(delays, 50), 2),
        "started again after the last had left, at most (s)": round(max(delays), 2),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


async def _loaded(fleet: Fleet, assistants: int) -> Receiver:
    """Return the replica that runs the most assistants, after requesting more rooms if it has too few."""
    while True:
        victim = max(fleet.replicas, key=lambda replica: len(fleet.rooms_of(replica)))
        if len(fleet.rooms_of(victim)) >= assistants:
            return victim
        room = fleet.room()
        await fleet.join(room, victim)
        await fleet.until([room], lambda tick: True, WITHIN)


async def _kill(fleet: Fleet, victim: Receiver, *, with_guards: bool) -> None:
    if with_guards:
        # Stop it first, so it cannot see its guards die.
        os.kill(victim.pid, signal.SIGSTOP)
        for guard in family(victim.pid, generations=1)[1:]:
            os.kill(guard, signal.SIGKILL)
    await fleet.kill(victim)
