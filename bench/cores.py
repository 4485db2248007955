"""Choose which core serves and which one generates load, so neither slows the other, and run programs on one core."""

import os
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import Struct

from reliability import ROOT
from whereby_trigger.testing.program import Program

PINNED = Path(__file__).with_name("pinned.py")


class Cores(Struct, frozen=True):
    """Hold the cores of the servers under test, the database and the load generator: their own, if there are enough."""

    servers: tuple[int, ...]
    database: int
    load: int

    @property
    def server(self) -> int:
        """The core of the only server."""
        return self.servers[0]

    def spread(self, number: int) -> int:
        """Return the core of the server with this number, counted from 0; cores are reused if there are not enough."""
        every = list(dict.fromkeys((*self.servers, self.database, self.load)))
        return every[number % len(every)]

    @property
    def in_words(self) -> str:
        """Return a description for the page."""
        servers = "core " + ", ".join(map(str, self.servers))
        shared = " too" if self.database == self.load else ""
        return f"servers on {servers}; load on core {self.load}; PostgreSQL on core {self.database}{shared}"


def share(available: Collection[int] | None = None) -> Cores:
    """Assign cores, by default all that this process may use.

    The last one generates load. The one before it is the database's if at least three are left for the rest.
    """
    cores = sorted(os.sched_getaffinity(0) if available is None else available)
    if len(cores) == 1:
        return Cores((cores[0],), cores[0], cores[0])
    if len(cores) < 4:
        return Cores(tuple(cores[:-1]), cores[-1], cores[-1])
    return Cores(tuple(cores[:-2]), cores[-2], cores[-1])


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return the command that runs another command on one core."""
    return [sys.executable, "-I", "-S", str(PINNED), str(core), *command]


@contextmanager
def on(core: int | None) -> Iterator[None]:
    """Pin this thread, and what it starts, to a core for a `with` block; None changes nothing."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@asynccontextmanager
async def serving(command: Sequence[str], core: int, env: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Start a program that prints its address to standard error, and wait until it listens; raises ProgramFailed."""
    program = await Program.start(pinned(core, command), cwd=ROOT, env=env)
    try:
        await program.listening()
        yield program
    finally:
        await program.kill()


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this repository."""
    return [sys.executable, "-m", name, *arguments]
