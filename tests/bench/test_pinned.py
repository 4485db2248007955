"""A program under test runs on its core, and never outlives the benchmark."""

import os
import select
import signal
import subprocess
import sys

from bench.cores import PINNED, pinned

WITHIN = 30.0
ASKING = """
import subprocess, sys
_, pinned, core, waiting, held = sys.argv
subprocess.run([sys.executable, "-I", "-S", pinned, core, "cat"], stdin=int(waiting), pass_fds=(int(held),))
"""


def test_a_command_runs_on_the_core_that_it_is_given() -> None:
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    said = subprocess.run(pinned(core, command), capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(core)]


def test_a_command_ends_with_the_process_that_asked_for_it() -> None:
    """Both hold an end of a pipe, which closes when the last of them has ended; the command says that it runs."""
    core = str(min(os.sched_getaffinity(0)))
    ended, held = os.pipe()
    waiting, told = os.pipe()
    try:
        command = [sys.executable, "-c", ASKING, str(PINNED), core, str(waiting), str(held)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(waiting, held)) as asking:
            os.close(held)
            os.write(told, b"run\n")
            assert asking.stdout is not None
            assert asking.stdout.readline() == b"run\n"
            asking.send_signal(signal.SIGKILL)
        assert select.select([ended], [], [], WITHIN)[0] == [ended]
    finally:
        for descriptor in (ended, waiting, told):
            os.close(descriptor)
