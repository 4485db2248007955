"""A program under test as a process on a core: started, waited for, and in any case gone at the end."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from bench.cores import pinned
from reliability.process import ROOT, Receiver
from whereby_trigger.config import foreign_environment


@asynccontextmanager
async def serving(command: Sequence[str], core: int, env: Mapping[str, str] | None = None) -> AsyncIterator[Receiver]:
    """Run a program that says on standard error where it listens, and wait until it does; raises ReceiverFailed."""
    process = await asyncio.create_subprocess_exec(
        *pinned(core, command),
        cwd=ROOT,
        env=foreign_environment() | dict(env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    receiver = Receiver(process)
    try:
        await receiver.listening()
        yield receiver
    finally:
        await receiver.kill()


def module(name: str, *arguments: str) -> list[str]:
    """Give the command that runs a module of this repository."""
    return [sys.executable, "-m", name, *arguments]
