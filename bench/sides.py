"""Who is measured against whom: the two peers, our receiver on each store, and the ceiling.

The peers are servers with Express on Node.js, each installed into its folder when it is first needed.
"""

import fcntl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal, get_args

from msgspec import Struct

from bench.cores import Cores, module, serving
from bench.load import Generator
from bench.programs import SECRET, Notes, read_notes
from bench.stores import PREFIX, Books, Stores, looking_into
from reliability.tools import find
from whereby_trigger.testing.program import Program, ProgramFailed

Side = Literal["peer", "careful", "sqlite", "postgresql", "ceiling"]
PEER, CAREFUL, SQLITE, POSTGRES, CEILING = SIDES = get_args(Side)
NAMES = {
    PEER: "Express, which verifies and stores nothing",
    CAREFUL: "careful peer (Express, better-sqlite3)",
    SQLITE: "SQLite",
    POSTGRES: "PostgreSQL",
    CEILING: "ceiling (bare ASGI app)",
}

PEERS = {side: Path(__file__).with_name(folder) for side, folder in ((PEER, "peer"), (CAREFUL, "careful_peer"))}
NOTES = "notes"


class PeerFailed(Exception):
    """A peer could not be installed."""


def peer_command(folder: Path, *arguments: str) -> list[str]:
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


class Server(Struct, frozen=True):
    """Hold a running side: its process on a core, its port, its folder, and its store's books, if any."""

    side: str
    process: Program
    core: int
    port: int
    books: Books | None
    folder: Path

    async def stop(self) -> Notes:
        """Drain and stop it, and return what its listener recorded. Raises ProgramFailed if it fails."""
        code = await self.process.stop()
        if code:
            raise ProgramFailed(f"a server ended with {code}; it said:\n{self.process.last_words}")
        notes = self.folder / NOTES
        return read_notes(notes) if notes.exists() else Notes(0)


class Setting:
    """Hold what every table gets: the cores, the stores, and the load generator."""

    def __init__(self, cores: Cores, stores: Stores, generator: Generator) -> None:
        self.cores = cores
        self.stores = stores
        self.generator = generator

    @asynccontextmanager
    async def up(
        self, side: str, *, url: str | None = None, options: Sequence[str] = (), core: int | None = None
    ) -> AsyncIterator[Server]:
        """Start a side in its own folder, on a core: by default the servers'.

        It uses the store with this URL, or a new one. `options` are those of `programs.receiver`.
        """
        core = self.cores.server if core is None else core
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX)))
            notes, times = folder / NOTES, "times" if "--times" in options else "count"
            if side == PEER:
                command = peer_command(PEERS[side], str(notes), times)
            elif side == CAREFUL:
                command = peer_command(PEERS[side], str(folder / "webhooks.db"), str(notes), times)
                url = f"sqlite:///{folder}/webhooks.db"
            elif side == CEILING:
                command = module("bench.programs.ceiling")
            else:
                url = url or stack.enter_context(self.stores.new(side))
                command = module("bench.programs.receiver", "--store", url, "--notes", str(notes), *options)
            env = {"NODE_ENV": "production", "WEBHOOK_SECRET": SECRET}
            process = await stack.enter_async_context(serving(command, core, env))
            books = None if url is None else await stack.enter_async_context(looking_into(url))
            yield Server(side, process, core, await process.listening(), books, folder)
