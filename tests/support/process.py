"""Programs run as a user runs them: real processes whose output is awaited line by line."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from tests.support import forks

COMMAND = str(Path(sys.executable).with_name("whereby-trigger"))
WITHIN = 20.0
PROC = Path("/proc/self")
"""Without it, ps lists processes; a minimal Linux has no ps."""

ADDRESS = re.compile(r"http://[^/ ]+:([0-9]+)/")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without any setting of ours or of PostgreSQL's, plus `extra`.

    PYTHONUNBUFFERED is left out too: `print` would write a line in parts, with a log line in between.
    """
    ours = ("WHEREBY", "PG", "PORT", "NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(extra or {})


def run(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end and return its exit code and output."""
    program = [COMMAND, *arguments]
    popen = forks.start(program, cwd=cwd, env=clean_environment(env), apart=True, session=False)
    try:
        said, complained = popen.communicate(timeout=WITHIN)
    finally:
        popen.kill()
        code = popen.wait()
    return subprocess.CompletedProcess(program, code, said, complained)


def all_pids() -> list[int]:
    """List the processes of this machine."""
    if PROC.exists():
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return [int(pid) for pid in subprocess.check_output(["ps", "-A", "-o", "pid="]).split()]


def parents() -> dict[int, int]:
    """Return the parent of each process of this machine; a zombie is a process."""
    if PROC.exists():
        found = ((pid, _parent(pid)) for pid in all_pids())
        return {pid: parent for pid, parent in found if parent is not None}
    listed = subprocess.check_output(["ps", "-A", "-o", "pid=", "-o", "ppid="], text=True)
    return {int(child): int(parent) for child, parent in map(str.split, listed.splitlines())}


def _parent(pid: int) -> int | None:
    """Read a process's parent, which is the second field behind its name; None if the process has ended."""
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(pid: int) -> list[int]:
    """List a process and all its descendants, elders first; empty if it has ended."""
    parent_of = parents()
    family = [pid] if pid in parent_of else []
    for elder in family:
        family += [child for child, parent in parent_of.items() if parent == elder]
    return family


def arguments(pid: int) -> str:
    """Read the command line of a process, with blanks between its words."""
    if PROC.exists():
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    return subprocess.check_output(["ps", "-ww", "-o", "args=", "-p", str(pid)], text=True)


class Process:
    """Run a program in the background for a `with` block; at its end the program is gone.

    `program` is an argument list; the command line's is `whereby_trigger("start", "app.py", "--port", "0")`.
    With `apart` neither stream can split a line of the other, and their relative order is lost.
    """

    def __init__(
        self, program: list[str], *, cwd: Path, env: Mapping[str, str] | None = None, apart: bool = False
    ) -> None:
        self._lines: list[str] = []
        self._seen = 0
        self._news = threading.Condition()
        self.popen = forks.start(program, cwd=cwd, env=clean_environment(env), apart=apart, session=os.name != "nt")
        self._streams = [stream for stream in (self.popen.stdout, self.popen.stderr) if stream is not None]
        self._open = len(self._streams)
        self._readers = [threading.Thread(target=self._read, args=(each,), daemon=True) for each in self._streams]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> str:
        """What it has printed so far, on both streams."""
        with self._news:
            return "".join(self._lines)

    @property
    def closed(self) -> bool:
        """Whether nobody can print any more: it has ended, and so has every process it started."""
        with self._news:
            return not self._open

    def line(self, text: str, within: float = WITHIN) -> str:
        """Wait for the next line that contains a text, after the last one waited for, and return it."""
        deadline = time.monotonic() + within
        with self._news:
            while True:
                while self._seen < len(self._lines):
                    self._seen += 1
                    if text in self._lines[self._seen - 1]:
                        return self._lines[self._seen - 1]
                left = deadline - time.monotonic()
                if not self._open or left <= 0 or not self._news.wait(left):
                    raise AssertionError(f"no line with {text!r} in:\n{''.join(self._lines)}")

    def port(self) -> int:
        """Wait for the next start line and return the port it names."""
        found = ADDRESS.search(self.line("predicates for"))
        assert found is not None
        return int(found[1])

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait(WITHIN)

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = WITHIN) -> int:
        """Send it a signal, wait for its end, and return its exit code."""
        self.popen.send_signal(number)
        return self.wait(within)

    def wait(self, within: float = WITHIN) -> int:
        """Wait for its end, and for the end of its output, and return its exit code."""
        code = self.popen.wait(within)
        self._read_out(within)
        return code

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_session()
        self.popen.wait(WITHIN)
        self._read_out(WITHIN)
        # Closing what a thread still reads would wait for that thread, and so forever.
        assert self.closed, f"a process that it started is left, and holds its output:\n{self.output}"
        for stream in self._streams:
            stream.close()

    def _end_session(self) -> None:
        """Kill it and everything it started, including process groups of their own."""
        if os.name == "nt":
            self.popen.kill()
            return
        pids = all_pids()
        if self.popen.returncode is not None and self.popen.pid in pids:
            # Nothing is left of its session: while something is, nobody else gets its number.
            return
        for pid in pids:
            try:
                if os.getsid(pid) == self.popen.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def _read_out(self, within: float) -> None:
        for reader in self._readers:
            reader.join(within)


def whereby_trigger(*arguments: str) -> list[str]:
    """Return the argument list that runs the command line."""
    return [COMMAND, *arguments]
