"""Measurements: percentiles; memory, CPU time and descendants of processes; and the commit that is measured."""

import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from reliability import ROOT


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def resident(pid: int) -> int:
    """Return the resident memory of a process now, in bytes."""
    return _field(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    """Restart the measurement of a process's peak memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak(pid: int) -> int:
    """Return a process's peak memory since the peak was reset, in bytes."""
    return _field(pid, "VmHWM")


def _field(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+([0-9]+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError(f"the status of process {pid} has no {name}")
    return int(found[1]) * 1024


TICKS = os.sysconf("SC_CLK_TCK")
USER, NICE, SYSTEM, STOLEN = 0, 1, 2, 7
"""Columns of a core's line. Interrupts are left out: they are in the time of what they interrupt."""


class Usage(Struct, frozen=True):
    """Hold seconds of CPU time: of the servers, of the database, and of everything that ran on the servers' cores."""

    servers: float
    database: float
    cores: float

    def since(self, before: "Usage") -> "Usage":
        """Return the usage since `before`."""
        return Usage(self.servers - before.servers, self.database - before.database, self.cores - before.cores)


def usage(servers: Iterable[int], database: Iterable[int], cores: Iterable[int]) -> Usage:
    """Read what processes and cores have used so far."""
    return Usage(cpu_seconds(servers), cpu_seconds(database), sum(busy_seconds(core) for core in cores))


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used so far, with their threads and the children that they have reaped.

    A process that is gone counts 0.
    """
    return sum(_of_process(pid) for pid in pids)


def precise_cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used so far, with all its threads, to the nanosecond; only on Linux."""
    # A number names the clock of another process. Source: clock_getcpuclockid(3), the kernel's CPUCLOCK_SCHED.
    return time.clock_gettime((~pid << 3) | 2)


def busy_seconds(core: int) -> float:
    """Return how long a core has been busy since the machine started, with any process or stolen from it."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return sum(int(ticks[place]) for place in (USER, NICE, SYSTEM, STOLEN)) / TICKS
    raise ValueError(f"the kernel tells nothing of core {core}")


def _of_process(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name in the second field may contain spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def family(pid: int, generations: int = 100) -> list[int]:
    """Return a process and its descendants of up to `generations` generations, the eldest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        own = [int(child) for child in children.read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []
    own = own if generations else []
    return [pid, *(descendant for child in own for descendant in family(child, generations - 1))]


def commit(*folders: str) -> str:
    """Return the commit of the working tree, and whether anything in `folders` has changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", *(f":/{folder}" for folder in folders))
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
