"""Run a process behind its guard for a `with` block: nothing of it is left, however the test ends."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from whereby_trigger.assist.process import GuardedProcess
from whereby_trigger.clock import boot_time

LONG = 60.0


@contextlib.asynccontextmanager
async def started(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    input: bytes = b"",
    lease: float = LONG,
    grace: float = 2.0,
    line: Callable[[str, str], None] | None = None,
    run: str | None = None,
) -> AsyncIterator[GuardedProcess]:
    """Start a program with `lease` seconds until its deadline."""
    process = await GuardedProcess.start(
        argv,
        env=os.environ if env is None else env,
        input=input,
        deadline=boot_time() + lease,
        grace=grace,
        line=line,
        run=run,
    )
    try:
        yield process
    finally:
        process.stop(0)
        await process.wait()
