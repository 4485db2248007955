"""Rows 13 and 14: a replica is frozen past its lease, or dies, while its assistants live.

On a busy machine, a replica that goes on after its lease may not end its assistants soon enough: then its watchdog ends
it.
"""

import json
import os
import shlex
import shutil
import signal
from collections import Counter
from pathlib import Path

from reliability.assistants import Tick, ticking
from reliability.fleet import Fleet
from reliability.measures import family
from reliability.row import Figures, Result, found, spread
from reliability.stores import Stores
from whereby_trigger.clock import boot_time
from whereby_trigger.process import EXIT_CODE
from whereby_trigger.testing.program import until

TTL = 6.0
WITHIN = TTL + 40.0
ROOMS = 3
ORPHANS_TTL = 3.0
DEATH_GRACE = 3.0
"""Seconds after its supervisor's death by which a group must be gone: TERM immediately, KILL at most 2 s later."""

GONE_WITHIN = 20.0


async def run(folder: Path, stores: Stores, *, freezes: int) -> Result:
    """Freeze `freezes` supervisors alone, and as many with all their children, each with assistants in a few rooms."""
    first, problems = await _freeze(folder / "alone", stores, freezes, children=False)
    second, more = await _freeze(folder / "family", stores, freezes, children=True)
    problems += more + found(len(first), "overlapping ticks where the supervisor alone was frozen")
    by_assistant = Counter(tick.assistant for tick in second)
    most = max(by_assistant.values(), default=0)
    if most > 1:
        problems.append(f"an assistant that was frozen ticked {most} times after another had followed it")
    figures: Figures = {
        "freezes, supervisor alone": freezes,
        "overlapping ticks, supervisor alone": len(first),
        "freezes, with children": freezes,
        "overlapping ticks, with children": len(second),
        "overlapping ticks of one assistant, at most": most,
    }
    return Result(figures, problems)


async def _freeze(folder: Path, stores: Stores, freezes: int, *, children: bool) -> tuple[list[Tick], list[str]]:
    problems: list[str] = []
    async with Fleet(folder, stores, "--lease-ttl", str(TTL)) as fleet:
        for _ in range(2):
            await fleet.start()
        for _ in range(freezes):
            frozen = await fleet.start()
            asked = await fleet.occupy(frozen, ROOMS, WITHIN)
            # A replica that is frozen in the middle of a commit holds the file, and so blocks everybody.
            await fleet.until_live(asked, WITHIN)
            left = fleet.rooms_of(frozen)
            processes = family(frozen.pid) if children else [frozen.pid]
            frozen_at = boot_time()
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            _, missing = await fleet.until_elsewhere(left, frozen, frozen_at, WITHIN)
            problems += missing
            for process in reversed(processes):
                os.kill(process, signal.SIGCONT)
            went_on = boot_time()
            await fleet.ticks.until(asked, WITHIN, lambda tick: tick.at > went_on + 1.0)  # noqa: B023
            code = await fleet.drain(frozen)
            if code not in (0, EXIT_CODE):
                problems.append(f"the replica that was frozen ended with {code}")
            for room in asked:
                await fleet.leave(room)
        return fleet.ticks.overlaps(), problems


async def run_orphans(folder: Path, stores: Stores, *, doses: int) -> Result:
    """Kill `doses` supervisors and freeze as many, with each form of child that this machine has."""
    forms = ["process", "sh", *(["npm"] if shutil.which("npm") else [])]
    figures: Figures = {"doses": doses, "forms": ", ".join(forms)}
    problems = [] if "npm" in forms else ["npm is missing: not shown behind npm start"]
    delays: dict[str, list[float]] = {"killed": [], "frozen": []}
    for number in range(doses):
        form = forms[number % len(forms)]
        for fault in delays:
            delay = await _orphan(folder / f"{fault}-{number}", stores, form, frozen=fault == "frozen")
            bound = ORPHANS_TTL if fault == "frozen" else DEATH_GRACE
            delays[fault].append(delay)
            if delay > bound:
                problems.append(f"{form}, supervisor {fault}: the group was there for {delay:.2f} s, not {bound:g}")
    for fault, seconds in delays.items():
        figures |= spread(f"supervisor {fault}: group gone after", seconds)
    return Result(figures, problems)


async def _orphan(folder: Path, stores: Stores, form: str, *, frozen: bool) -> float:
    """Kill or freeze an assistant's supervisor; return after how many seconds the whole group is gone."""
    async with Fleet(folder, stores, "--assistant", form, "--lease-ttl", str(ORPHANS_TTL)) as fleet:
        if form == "npm":
            script = shlex.join(ticking(str(fleet.ticks.path)))
            package = {"name": "assistant", "version": "1.0.0", "scripts": {"start": script}}
            (folder / "package.json").write_text(json.dumps(package), encoding="utf-8")
        replica = await fleet.start()
        await fleet.occupy(replica, 1, GONE_WITHIN)
        if not fleet.ticks.all:
            return GONE_WITHIN
        children = family(replica.pid)[1:]
        began = boot_time()
        os.kill(replica.pid, signal.SIGSTOP if frozen else signal.SIGKILL)
        await until(lambda: not any(map(_lives, children)), GONE_WITHIN)
        gone = boot_time()
        fleet.ticks.fresh()
        last = max(tick.at for tick in fleet.ticks.all)
        return max(gone, last) - began


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
