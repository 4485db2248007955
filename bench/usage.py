"""How much CPU time processes took, and how long cores were busy, as the kernel counts it."""

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

TICKS = os.sysconf("SC_CLK_TCK")
USER, NICE, SYSTEM, STOLEN = 0, 1, 2, 7
"""Where a core's line has what was run on it. Interrupts are left out: they are in the time of what they interrupt."""


class Usage(Struct, frozen=True):
    """Hold seconds of CPU time: of the servers, of the database, and of all that ran on the servers' cores."""

    servers: float
    database: float
    cores: float

    def since(self, before: "Usage") -> "Usage":
        """Give what was added."""
        return Usage(self.servers - before.servers, self.database - before.database, self.cores - before.cores)


def usage(servers: Iterable[int], database: Iterable[int], cores: Iterable[int]) -> Usage:
    """Read what processes and cores have used so far."""
    return Usage(cpu_seconds(servers), cpu_seconds(database), sum(busy_seconds(core) for core in cores))


def cpu_seconds(pids: Iterable[int]) -> float:
    """Give the CPU time that processes have taken so far, with their threads and the children that they have buried.

    One that is gone counts 0.
    """
    return sum(_of_process(pid) for pid in pids)


def busy_seconds(core: int) -> float:
    """Give for how long a core has been busy since the machine was started, with whatever, or taken away from it."""
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
    # The name in the second field may hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS
