"""Rows 12, 27 and 30: a replica with assistants is killed with -9, alone or with their guards, or at a boundary."""

import os
import signal
from pathlib import Path

from reliability.boundaries import ROOM_BOUNDARIES
from reliability.fleet import Fleet
from reliability.measures import family
from reliability.receivers import Receiver, ReceiverFailed
from reliability.row import Figures, Result, found, spread
from reliability.stores import Stores, decided
from whereby_trigger.clock import boot_time
from whereby_trigger.testing import webhook

BACK_WITHIN = 15.0
WITHIN = 20.0
SOON = 2.0
"""Seconds after which a replica whose room is served by another no longer reaches its boundary."""

AFTER_THE_LAST = 2.0
"""Seconds after the last tick of the dead replica's assistant by which another must tick."""


async def run(
    folder: Path, stores: Stores, *, kills: int, assistants: int, bound: float, lease: float = 30.0
) -> Result:
    """Kill `kills` replicas, each with `assistants` assistants; each must tick elsewhere within `bound` seconds."""
    async with Fleet(folder, stores, "--lease-ttl", f"{lease:g}") as fleet:
        for _ in range(3):
            await fleet.start()
        delays: list[float] = []
        problems: list[str] = []
        for _ in range(kills):
            victim = await _loaded(fleet, assistants)
            left = fleet.rooms_of(victim)
            killed_at = boot_time()
            await fleet.kill(victim)
            again, missing = await fleet.until_elsewhere(left, victim, killed_at, BACK_WITHIN)
            problems += missing
            delays += [at - killed_at for at in again.values()]
            await fleet.start()
        doubled = fleet.ticks.overlaps()
    late = [delay for delay in delays if delay > bound]
    if late:
        problems.append(f"{len(late)} of {len(delays)} assistants came back later than {bound:g} s")
    problems += found(len(doubled), "overlapping ticks")
    figures: Figures = {
        "kills": kills,
        "assistants restarted": len(delays),
        **spread("restarted after", delays),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


async def run_slow_leavers(folder: Path, stores: Stores, *, kills: int, assistants: int, lease: float = 30.0) -> Result:
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
            again, missing = await fleet.until_elsewhere(left, victim, killed_at, WITHIN)
            problems += missing
            # This cannot be told for a single room: the replica counts as dead when all its assistants have left.
            last = max(tick.at for tick in fleet.ticks.all if tick.host == victim.pid)
            lasted.append(last - killed_at)
            delays += [at - last for at in again.values()]
            by = max(last + AFTER_THE_LAST, killed_at + lease + 1 if lease < WITHIN else 0)
            late = [room for room, at in again.items() if at > by]
            problems += [f"{room} was served again {again[room] - last:.2f} s after the last left" for room in late]
        doubled = fleet.ticks.overlaps()
    problems += found(len(doubled), "overlapping ticks")
    figures: Figures = {
        "kills": kills,
        "of these with the guards": kills // 2,
        "assistants started again": len(delays),
        "the last left after the kill, at most (s)": round(max(lasted), 2),
        **spread("started again after the last had left", delays),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


async def _loaded(fleet: Fleet, assistants: int) -> Receiver:
    """Return the replica that runs the most assistants, after requesting more rooms if it has too few."""
    while True:
        victim = max(fleet.replicas, key=lambda replica: len(fleet.rooms_of(replica)))
        if len(fleet.rooms_of(victim)) >= assistants:
            return victim
        await fleet.occupy(victim, 1, WITHIN)


async def _kill(fleet: Fleet, victim: Receiver, *, with_guards: bool) -> None:
    if with_guards:
        # Stop it first, so it cannot see its guards die.
        os.kill(victim.pid, signal.SIGSTOP)
        for guard in family(victim.pid, generations=1)[1:]:
            os.kill(guard, signal.SIGKILL)
    await fleet.kill(victim)


async def run_at_boundaries(folder: Path, stores: Stores, *, deaths: int) -> Result:
    """Kill a replica `deaths` times at each boundary while another lives; each room must get its one assistant.

    If the other replica takes the room first, the replica does not reach its boundary, and another one has to.
    """
    problems: list[str] = []
    served = outrun = 0
    async with Fleet(folder, stores, *stores.quick_lease) as fleet:
        survivor = await fleet.start()
        acknowledged: list[str] = []
        for boundary in ROOM_BOUNDARIES:
            died = 0
            while died < deaths and outrun <= len(ROOM_BOUNDARIES) * deaths:
                try:
                    doomed = await fleet.start("--die", boundary)
                except ReceiverFailed:
                    # It looks for rooms to take as it starts, and died before it said where it listens.
                    fleet.replicas.pop()
                    outrun += 1
                    continue
                room = fleet.room()
                acknowledged.append(await _join(fleet, room, doomed, survivor))
                if await fleet.ticks.until([room], WITHIN, lambda tick: tick.host == survivor.pid):
                    served += 1
                else:
                    problems.append(f"{boundary}: no assistant of the survivor came to {room}")
                fleet.replicas.remove(doomed)
                if await doomed.died(SOON):
                    died += 1
                else:
                    outrun += 1
                    await doomed.kill()
                await fleet.send(webhook("room.session.ended", room=room, room_session_id=room), survivor)
        doubled = fleet.ticks.overlaps()
        states = {record.id: record.state for record in await decided(fleet.url)}
    lost = [id for id in acknowledged if states.get(id) != "fired"]
    problems += found(len(lost), "acknowledged did not fire")
    problems += found(len(doubled), "overlapping ticks")
    problems += [f"the other replica was quicker {outrun} times"] if outrun > len(ROOM_BOUNDARIES) * deaths else []
    figures: Figures = {
        "boundaries": len(ROOM_BOUNDARIES),
        "deaths at each": deaths,
        "rooms served": served,
        "did not die of this room": outrun,
        "acknowledged lost": len(lost),
        "overlaps": len(doubled),
    }
    return Result(figures, problems)


async def _join(fleet: Fleet, room: str, doomed: Receiver, survivor: Receiver) -> str:
    """Deliver a join to the doomed replica, and to the other if no answer comes; return its id."""
    sent = webhook("room.client.joined", room=room, room_session_id=room)
    if await fleet.send(sent, doomed) != 200:
        await fleet.send(sent, survivor)
    return sent.id
