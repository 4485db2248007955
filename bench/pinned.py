"""Run a command on one core: `pinned.py CORE COMMAND...`. Run by path, so that it costs next to nothing."""

import os
import sys

if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the point is to become that command
