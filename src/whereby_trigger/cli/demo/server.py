"""A server of the demo: one of its programs as a process of its own, started, killed and stopped from outside."""

import asyncio
import contextlib
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from whereby_trigger.cli.demo.venue import Venue
from whereby_trigger.config import foreign_environment
from whereby_trigger.errors import LifecycleError

ADDRESS = re.compile(r"http://127\.0\.0\.1:([0-9]+)/")
START_WITHIN = 20.0
STOP_WITHIN = 10.0


class DemoServer:
    """Run one of the demo's programs in a folder, on a port of its own choice."""

    def __init__(self, folder: Path, secret: str, program: str, venue: Venue) -> None:
        self.folder = folder
        self._program = program
        self.store = venue.store_in(folder)
        self.port = 0
        self.refusals: list[str] = []
        self._environment = foreign_environment() | {
            "WHEREBY_WEBHOOK_SECRET": secret,
            "WHEREBY_TRIGGER_STORE": self.store,
            "WHEREBY_TRIGGER_HOST": "127.0.0.1",
            "WHEREBY_TRIGGER_PORT": "0",
            **venue.settings,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What the process ended with; None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start the process and wait until it listens; raises LifecycleError, with its last words, if it does not."""
        program = self.folder / self._program
        if not program.exists():
            with resources.as_file(resources.files("whereby_trigger.cli.demo") / self._program) as packaged:
                shutil.copy(packaged, program)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program)),
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        lines = self._lines(self._process)
        self.port = await self._listening(lines)
        self._log = asyncio.create_task(self._read_log(lines))

    async def kill(self) -> None:
        """End the process as a crash would, and wait until it is gone."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._gone()

    async def stop(self) -> None:
        """Have the process drain and end; one that does not is killed."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
        await self.kill()

    async def _gone(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._log is not None:
            await self._log

    async def _lines(self, process: asyncio.subprocess.Process) -> AsyncIterator[str]:
        if process.stderr is not None:
            async for line in process.stderr:
                yield line.decode(errors="replace")

    async def _listening(self, lines: AsyncIterator[str]) -> int:
        said: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_WITHIN):
                async for line in lines:
                    said.append(line)
                    if address := ADDRESS.search(line):
                        return int(address[1])
        await self.kill()
        raise LifecycleError("the demo's server did not start; it said:\n" + "".join(said[-20:]))

    async def _read_log(self, lines: AsyncIterator[str]) -> None:
        """Read the log to its end, which also keeps the process from waiting for a reader."""
        async for line in lines:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("answer", 200) != 200:
                    self.refusals.append(entry["reason"])
