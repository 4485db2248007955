"""Files in this machine's memory, so a sync does not wait for a disk."""

import os
import shutil
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30
"""Bytes that must be free: several test processes have a PostgreSQL each, which takes some hundred MiB."""


def is_roomy() -> bool:
    """Return True if files may be stored there, there is room for them, and programs among them can be run."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return False
    return shutil.disk_usage(MEMORY).free >= ROOM and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
