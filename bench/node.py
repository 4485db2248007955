"""The peer: Express on Node.js, installed into its folder when it is first needed."""

import subprocess
from pathlib import Path

from bench.tools import find

FOLDER = Path(__file__).with_name("peer")
LOCK = FOLDER / "package-lock.json"
INSTALLED = FOLDER / "node_modules" / ".package-lock.json"


class PeerFailed(Exception):
    """The peer could not be installed."""


def command(notes: Path, *, times: bool) -> list[str]:
    """Give the command that runs the peer, installed if need be; raises ToolMissing, or PeerFailed with npm's words."""
    node = find("node")
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        _install()
    return [node, str(FOLDER / "server.mjs"), str(notes), "times" if times else "count"]


def _install() -> None:
    done = subprocess.run([find("npm"), "ci", "--omit=dev"], cwd=FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerFailed(f"npm ci failed in {FOLDER}:\n{done.stderr.strip()}")
    INSTALLED.touch()
