"""The peers: two servers with Express on Node.js, each installed into its folder when it is first needed."""

import fcntl
import subprocess
from pathlib import Path

from bench.tools import find

BENCH = Path(__file__).parent
PEER = BENCH / "peer"
CAREFUL = BENCH / "careful_peer"


class PeerFailed(Exception):
    """A peer could not be installed."""


def command(folder: Path, *arguments: str) -> list[str]:
    """Return the command that runs a peer, installed if necessary.

    Raises ToolMissing without Node.js, and PeerFailed with npm's words if the installation fails.
    """
    node = find("node")
    with (folder / "package-lock.json").open("rb") as lock:
        # Tests in several processes may need it at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed(folder):
            _install(folder)
    return [node, str(folder / "server.mjs"), *arguments]


def is_installed(folder: Path) -> bool:
    """Return True if the installed packages of a peer are those of its lock file."""
    installed = folder / "node_modules" / ".package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= (folder / "package-lock.json").stat().st_mtime


def _install(folder: Path) -> None:
    done = subprocess.run([find("npm"), "ci", "--omit=dev"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerFailed(f"npm ci failed in {folder}:\n{done.stderr.strip()}")
    (folder / "node_modules" / ".package-lock.json").touch()
