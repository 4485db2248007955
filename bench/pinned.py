"""Run a command on one core, until its parent ends at the latest: `pinned.py CORE COMMAND...`.

Run by path, so it costs next to nothing.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""The process gets a signal when its parent ends, even after an exec. Source: prctl(2)."""

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the point is to become that command
