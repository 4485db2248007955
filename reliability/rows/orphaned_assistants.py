"""Row 14: the supervisor dies or freezes while its child lives, also behind a shell and npm."""

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

from reliability.fleet import Fleet, family
from reliability.measures import percentile
from reliability.row import Result
from reliability.stores import Stores
from reliability.ticks import ticking
from whereby_trigger.clock import boot_time
from whereby_trigger.testing.program import until

TTL = 3.0
DEATH_GRACE = 3.0
"""Seconds after its supervisor's death by which a group must be gone: TERM immediately, KILL at most 2 s later."""

WITHIN = 20.0


async def run(folder: Path, stores: Stores, *, doses: int) -> Result:
    """Kill `doses` supervisors and freeze as many, with each form of child that this machine has."""
    forms = ["process", "sh", *(["npm"] if shutil.which("npm") else [])]
    figures: dict[str, int | float | str] = {"doses": doses, "forms": ", ".join(forms)}
    problems = [] if "npm" in forms else ["npm is missing: not shown behind npm start"]
    delays: dict[str, list[float]] = {"killed": [], "frozen": []}
    for number in range(doses):
        form = forms[number % len(forms)]
        for fault in delays:
            place = folder / f"{fault}-{number}"
            place.mkdir()
            delay = await _orphan(place, stores, form, frozen=fault == "frozen")
            bound = TTL if fault == "frozen" else DEATH_GRACE
            delays[fault].append(delay)
            if delay > bound:
                problems.append(f"{form}, supervisor {fault}: the group was there for {delay:.2f} s, not {bound:g}")
    for fault, seconds in delays.items():
        figures[f"supervisor {fault}: group gone after, median (s)"] = round(percentile(seconds, 50), 2)
        figures[f"supervisor {fault}: group gone after, at most (s)"] = round(max(seconds), 2)
    return Result(figures, problems)


async def _orphan(folder: Path, stores: Stores, form: str, *, frozen: bool) -> float:
    """Kill or freeze an assistant's supervisor; return after how many seconds the whole group is gone."""
    async with Fleet(folder, stores, "--assistant", form, "--lease-ttl", str(TTL)) as fleet:
        if form == "npm":
            script = shlex.join(ticking(str(fleet.ticks.path)))
            package = {"name": "assistant", "version": "1.0.0", "scripts": {"start": script}}
            (folder / "package.json").write_text(json.dumps(package), encoding="utf-8")
        replica = await fleet.start()
        room = fleet.room()
        await fleet.join(room, replica)
        if not await fleet.until([room], lambda tick: True, WITHIN):
            return WITHIN
        children = family(replica.pid)[1:]
        began = boot_time()
        os.kill(replica.pid, signal.SIGSTOP if frozen else signal.SIGKILL)
        await until(lambda: not any(map(_lives, children)), WITHIN)
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
