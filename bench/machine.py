"""The machine and the software that were measured: the machine without its name, and all versions."""

import json
import os
import platform
import re
import sqlite3
import subprocess
import tempfile
import time
import timeit
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from bench.sides import PEERS
from bench.stores import BUFFERS
from reliability.tools import ToolMissing, find
from tests.support.postgres import LATEST

PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "asyncpg")
SYNCS = 100
PAGE = b"\0" * 4096

PLAIN = """
class Item:
    def __init__(self, value): self.value = value
    def plus(self, more): return self.value + more
items = {}
def plain(times):
    for number in range(times):
        item = Item(number)
        items[number % 100] = f"{item.plus(2)}: {item.value}"
"""
"""Objects, calls, a dictionary and texts: what most of a program's time goes into."""


def machine() -> list[str]:
    """Describe this machine, a line for each thing; host names are left out."""
    return [
        f"{os.cpu_count()} cores, {_cpu_model()}; {_memory():.0f} GiB of memory",
        f"{platform.system()} {platform.release()} {platform.machine()}; load average {os.getloadavg()[0]:.1f} before",
        f"files on {_file_system(tempfile.gettempdir())}; a synced write of 4 KiB takes {_sync():.2f} ms (median)",
        f"200,000 turns of a loop in plain Python take {_plain_python():.0f} ms of CPU (the least of 10)",
    ]


def versions() -> str:
    """List the versions of the software involved."""
    found = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    found.append(f"PostgreSQL {LATEST} with fsync on and shared_buffers of {BUFFERS}")
    found += [f"{package} {known}" for package in PACKAGES if (known := _version(package))]
    found += [text for text in (_tool("node", "Node.js"), _tool("wrk", "wrk")) if text]
    found += [f"{name.replace('express', 'Express')} {number}" for name, number in _peers().items()]
    return ", ".join(found)


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(folder: str) -> str:
    """Return the type of the file system that a folder is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    inside = [(where, kind) for where, kind in mounts if Path(folder).resolve().is_relative_to(where)]
    return max(inside, key=lambda mount: len(mount[0]), default=("", "an unknown file system"))[1]


def _sync() -> float:
    """Measure how long it takes to sync a page to disk, in milliseconds."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), PAGE)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return median(took)


def _plain_python() -> float:
    """Measure how much CPU time plain Python takes, in milliseconds.

    A Python compiled without optimization by profile, which is how pyenv does it, takes half as long again as Debian's
    of the same version, and does not say so. Node.js comes optimized.
    """
    return min(timeit.repeat("plain(200_000)", PLAIN, timer=time.process_time, number=1, repeat=10)) * 1000


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tool(name: str, called: str) -> str | None:
    try:
        said = subprocess.run([find(name), "-v"], capture_output=True, text=True, check=False).stdout
    except ToolMissing:
        return None
    found = re.search(r"[0-9]+(\.[0-9]+)+", said)
    return f"{called} {found[0]}" if found else called


def _peers() -> dict[str, str]:
    """Return the versions of what the peers are written with, by name, as their package files pin them."""
    pinned = (json.loads((folder / "package.json").read_text(encoding="utf-8")) for folder in PEERS.values())
    return {name: number for package in pinned for name, number in package["dependencies"].items()}
