"""How a guard is started: what it inherits, and the ends that stay with the supervisor."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from whereby_trigger.files import default_files

GUARD = Path(__file__).with_name("guard.py")

FILES = "WHEREBY_TRIGGER_GUARD_FILES"
"""The variable by which the guard is told how many files its assistant may open, if not as many as we."""


class Spawned(Struct, frozen=True):
    """Hold a guard's process, and our ends of what leads to it and to its assistant, as descriptors."""

    popen: "subprocess.Popen[bytes]"
    control: int
    stdin: int
    stderr: int
    stdout: int | None


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    deadline: float,
    grace: float,
    *,
    life: int | None,
    run: str,
    stdout: bool,
) -> Spawned:
    """Start a guard for a command, with the assistant's stdout kept or dropped.

    `life` is the descriptor of the replica's lock, if it has one, which the guard then holds too; `run` names the run.

    Raises OSError where the system has no room for it, ValueError where a text cannot be handed to a process.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        here, there = (end.detach() for end in socket.socketpair())
        control = _closed_by(ours, here)
        their_control = _closed_by(theirs, there)
        their_stdin, stdin = _pipe(theirs, ours)
        stderr, their_stderr = _pipe(ours, theirs)
        kept, their_stdout = _pipe(ours, theirs) if stdout else (None, subprocess.DEVNULL)
        told = (their_control, os.getpid(), float(deadline), float(grace), -1 if life is None else life, run)
        files = default_files()
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), *map(str, told), *argv],
            env=dict(env) if files is None else {**env, FILES: str(files)},
            stdin=their_stdin,
            stdout=their_stdout,
            stderr=their_stderr,
            pass_fds=(their_control,) if life is None else (their_control, life),
            start_new_session=True,
        )
        ours.pop_all()
    return Spawned(popen, control, stdin, stderr, kept)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    return _closed_by(reader, reading), _closed_by(writer, writing)


def _closed_by(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
