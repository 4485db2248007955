"""Row 13: a replica is frozen past its lease and goes on: the supervisor alone, or with its children.

On a busy machine, such a replica may not end its assistants soon enough after it goes on: then its watchdog ends it.
"""

import os
import signal
from pathlib import Path

from reliability.fleet import Fleet, family
from reliability.row import Result
from reliability.stores import Stores
from reliability.ticks import Tick, overlaps
from whereby_trigger.clock import boot_time
from whereby_trigger.process import EXIT_CODE

TTL = 6.0
WITHIN = TTL + 40.0


async def run(folder: Path, stores: Stores, *, freezes: int, rooms: int = 3) -> Result:
    """Freeze `freezes` supervisors alone, and as many with all their children, each with `assistants` assistants."""
    alone = folder / "alone"
    family_too = folder / "family"
    alone.mkdir()
    family_too.mkdir()
    first, problems = await _freeze(alone, stores, freezes, rooms, children=False)
    second, more = await _freeze(family_too, stores, freezes, rooms, children=True)
    problems += more
    if first:
        problems.append(f"{len(first)} overlapping ticks where the supervisor alone was frozen")
    by_assistant: dict[tuple[int, int], int] = {}
    for tick in second:
        by_assistant[tick.assistant] = by_assistant.get(tick.assistant, 0) + 1
    most = max(by_assistant.values(), default=0)
    if most > 1:
        problems.append(f"an assistant that was frozen ticked {most} times after another had followed it")
    figures: dict[str, int | float | str] = {
        "freezes, supervisor alone": freezes,
        "overlapping ticks, supervisor alone": len(first),
        "freezes, with children": freezes,
        "overlapping ticks, with children": len(second),
        "overlapping ticks of one assistant, at most": most,
    }
    return Result(figures, problems)


async def _freeze(
    folder: Path, stores: Stores, freezes: int, rooms: int, *, children: bool
) -> tuple[list[Tick], list[str]]:
    problems: list[str] = []
    async with Fleet(folder, stores, "--lease-ttl", str(TTL)) as fleet:
        for _ in range(2):
            await fleet.start()
        for _ in range(freezes):
            frozen = await fleet.start()
            asked = [fleet.room() for _ in range(rooms)]
            for room in asked:
                await fleet.join(room, frozen)
            await fleet.until(asked, lambda tick: True, WITHIN)
            # A replica that is frozen in the middle of a commit holds the file, and so blocks everybody.
            await fleet.until_live(asked, WITHIN)
            left = fleet.rooms_of(frozen)
            processes = family(frozen.pid) if children else [frozen.pid]
            frozen_at = boot_time()
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            again = await fleet.until(left, lambda tick: tick.at > frozen_at and tick.host != frozen.pid, WITHIN)  # noqa: B023
            problems += [f"no assistant came back to {room}" for room in left - again.keys()]
            for process in reversed(processes):
                os.kill(process, signal.SIGCONT)
            went_on = boot_time()
            await fleet.until(asked, lambda tick: tick.at > went_on + 1.0, WITHIN)  # noqa: B023
            code = await fleet.drain(frozen)
            if code not in (0, EXIT_CODE):
                problems.append(f"the replica that was frozen ended with {code}")
            for room in asked:
                await fleet.leave(room)
        fleet.ticks.fresh()
        return overlaps(fleet.ticks.all), problems
