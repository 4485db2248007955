"""Calls of the command line that kill themselves with -9 at their n-th step: `python -m reliability.dying_commands`.

A step is each moment before and after a statement to a store, while SQLite executes one, while PostgreSQL has one and
has not answered, and before and after a file is renamed. The program imports the command line once, and each call is a
separate process. A call is a line of JSON on standard input: `arguments`, `step` (0 to count the steps without dying)
and `output`, a file for what it prints. The answer is a line with `code`, -9 if it was killed, and `steps`.
"""

import asyncio
import functools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import asyncpg

from reliability import ROOT
from reliability.boundaries import wrap
from tests.support.process import clean_environment
from whereby_trigger.cli import COMMANDS, main
from whereby_trigger.store import privacy

INSTRUCTIONS = 500
"""Instructions of SQLite's virtual machine that count as one step of a statement."""

PAGE = 4
"""Webhooks that are read and changed together: a few dozen are then several pages."""


class Steps:
    """Count steps, and kill this process at the n-th."""

    def __init__(self, last: int) -> None:
        self.count, self._last = 0, last

    def step(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        self._watch_sqlite()
        self._watch_postgresql()
        for name in ("replace", "unlink"):
            wrap(os, name, self.step, self.step)

    def _watch_sqlite(self) -> None:
        step = self.step

        class Connection(sqlite3.Connection):
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                super().__init__(*arguments, **keywords)
                self.set_progress_handler(step, INSTRUCTIONS)

            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                step()
                cursor = super().execute(*arguments)
                step()
                return cursor

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                step()
                cursor = super().executemany(*arguments)
                step()
                return cursor

        sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    def _watch_postgresql(self) -> None:
        for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
            setattr(asyncpg.Connection, name, self._watched(getattr(asyncpg.Connection, name)))

    def _watched(self, original: Any) -> Any:
        @functools.wraps(original)
        async def call(*arguments: Any, **keywords: Any) -> Any:
            self.step()
            coming = asyncio.ensure_future(original(*arguments, **keywords))
            # The statement is sent by now, and cannot be answered yet.
            await asyncio.sleep(0)
            self.step()
            answer = await coming
            self.step()
            return answer

        return call


class Killed(NamedTuple):
    """Hold the result of a call: its exit code, -9 if it was killed, its steps if not, and its output."""

    code: int
    steps: int
    output: str


class Caller:
    """Call the command line in processes that kill themselves, for a `with` block."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._output = folder / "printed"
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "reliability.dying_commands"],
            cwd=ROOT,
            env=clean_environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, step: int = 0) -> Killed:
        """Call the command line, and kill it at a step; 0 is none."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        said = {"arguments": arguments, "step": step, "output": str(self._output)}
        self._popen.stdin.write(json.dumps(said) + "\n")
        self._popen.stdin.flush()
        ended = json.loads(self._popen.stdout.readline())
        return Killed(output=self._output.read_text(), **ended)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.communicate()


def _call(arguments: list[str], step: int, output: str) -> dict[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        steps = Steps(step)
        steps.watch()
        sys.argv = ["whereby-trigger", *arguments]
        code = 1
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os.write(writing, str(steps.count).encode())
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        return {"code": os.waitstatus_to_exitcode(status), "steps": int(told.read() or 0)}


if __name__ == "__main__":
    for command in ("forget", "db", "events"):
        COMMANDS[command]
    privacy.AT_ONCE = PAGE  # type: ignore[misc]
    for line in sys.stdin:
        print(json.dumps(_call(**json.loads(line))), flush=True)
