"""Row 12: a replica with assistants is killed with -9."""

from pathlib import Path

from reliability.fleet import Fleet
from reliability.measures import percentile
from reliability.process import Receiver
from reliability.row import Result
from reliability.stores import Stores
from reliability.ticks import overlaps
from whereby_trigger.clock import boot_time

WITHIN = 15.0


async def run(
    folder: Path, stores: Stores, *, kills: int, assistants: int, bound: float, lease: float = 30.0
) -> Result:
    """Kill `kills` replicas, each with `assistants` assistants; each must tick elsewhere within `bound` seconds."""
    async with Fleet(folder, stores, "--lease-ttl", f"{lease:g}") as fleet:
        for _ in range(3):
            await fleet.start()
        rooms: set[str] = set()
        delays: list[float] = []
        problems: list[str] = []
        for _ in range(kills):
            victim = await _loaded(fleet, rooms, assistants)
            left = fleet.rooms_of(victim)
            killed_at = boot_time()
            await fleet.kill(victim)
            again = await fleet.until(left, lambda tick: tick.at > killed_at and tick.host != victim.pid, WITHIN)  # noqa: B023
            problems += [f"no assistant came back to {room}" for room in left - again.keys()]
            delays += [at - killed_at for at in again.values()]
            await fleet.start()
        doubled = overlaps(fleet.ticks.all)
    late = [delay for delay in delays if delay > bound]
    if late:
        problems.append(f"{len(late)} of {len(delays)} assistants came back later than {bound:g} s")
    if doubled:
        problems.append(f"{len(doubled)} ticks of an assistant that another had followed")
    return Result(_figures(kills, delays, len(doubled)), problems)


async def _loaded(fleet: Fleet, rooms: set[str], assistants: int) -> Receiver:
    """Return the replica that runs the most assistants, after requesting more rooms if it has too few."""
    while True:
        victim = max(fleet.replicas, key=lambda replica: len(fleet.rooms_of(replica)))
        if len(fleet.rooms_of(victim)) >= assistants:
            return victim
        room = fleet.room()
        rooms.add(room)
        await fleet.join(room, victim)
        await fleet.until([room], lambda tick: True, WITHIN)


def _figures(kills: int, delays: list[float], doubled: int) -> dict[str, int | float | str]:
    return {
        "kills": kills,
        "assistants restarted": len(delays),
        "restarted after, median (s)": round(percentile(delays, 50), 2),
        "restarted after, at most (s)": round(max(delays), 2),
        "overlaps": doubled,
    }
