"""External programs that the rows, the benchmark and some tests need, and that not every machine has."""

import shutil

HOW_TO_GET = {
    "wrk": "the load generator; on Debian: apt-get install wrk",
    "node": "Node.js 18 or later, on which the peer runs; on Debian: apt-get install nodejs npm",
    "npm": "Node.js's package manager, which installs the peer; on Debian: apt-get install nodejs npm",
    "promtool": "the checker that comes with Prometheus; on Debian: apt-get install prometheus",
}


class ToolMissing(Exception):
    """A program or library that is needed is not installed; the message names it and how to install it."""


def find(name: str) -> str:
    """Return the path of a program; raises ToolMissing, which says how to install it."""
    path = shutil.which(name)
    if path is None:
        raise ToolMissing(f"{name} is missing: {HOW_TO_GET[name]}")
    return path
