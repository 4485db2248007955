"""How much memory another process takes, as the kernel counts it."""

import re
from pathlib import Path


def resident(pid: int) -> int:
    """Give the bytes that a process has in memory now."""
    return _field(pid, "VmRSS")


def forget_peak(pid: int) -> None:
    """Begin anew to look for the most that a process has in memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak(pid: int) -> int:
    """Give the most bytes that a process has had in memory since the peak was forgotten."""
    return _field(pid, "VmHWM")


def _field(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{name}:\s+([0-9]+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError(f"the status of process {pid} has no {name}")
    return int(found[1]) * 1024
