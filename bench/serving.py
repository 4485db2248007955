"""A program under test as a process on a core: started, waited for, and in any case gone at the end."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from bench.cores import pinned
from reliability.process import ROOT
from whereby_trigger.testing.program import Program


@asynccontextmanager
async def serving(command: Sequence[str], core: int, env: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Run a program that says on standard error where it listens, and wait until it does; raises ProgramFailed."""
    program = await Program.start(pinned(core, command), cwd=ROOT, env=env)
    try:
        await program.listening()
        yield program
    finally:
        await program.kill()


def module(name: str, *arguments: str) -> list[str]:
    """Give the command that runs a module of this repository."""
    return [sys.executable, "-m", name, *arguments]
