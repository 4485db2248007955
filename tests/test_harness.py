"""How the demo, the benchmark and the reliability suite start a program, wait for it and end it."""

import sys
from pathlib import Path

import pytest

from tests.support.until import eventually
from whereby_trigger.testing.program import Program, ProgramFailed, until

pytestmark = pytest.mark.anyio

# `signal.pause()` would sleep on if the signal came just before it.
LISTENS = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("a word before", file=sys.stderr, flush=True)
print("listening at http://127.0.0.1:8123/ for now", file=sys.stderr, flush=True)
signal.sigwait([signal.SIGTERM])
sys.exit(3)
"""


async def test_a_program_is_waited_for_until_it_says_its_address_and_its_log_is_heard(tmp_path: Path) -> None:
    heard: list[bytes] = []
    program = await Program.start([sys.executable, "-c", LISTENS], cwd=tmp_path, heard=heard.append)
    try:
        assert await program.listening() == 8123
        assert heard[0] == b"a word before\n"
        assert program.exit_code is None
        assert await program.stop() == 3
    finally:
        await program.kill()
    assert program.exit_code == 3


async def test_a_program_that_ends_before_it_listens_says_its_last_words(tmp_path: Path) -> None:
    program = await Program.start([sys.executable, "-c", "raise SystemExit('no port')"], cwd=tmp_path)
    with pytest.raises(ProgramFailed, match="no port"):
        await program.listening()
    assert await program.ended() == 1


async def test_a_kill_takes_what_the_program_started_along(tmp_path: Path) -> None:
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LISTENS!r}])"
    program = await Program.start([sys.executable, "-c", nested], cwd=tmp_path)
    await program.listening()
    # It ends only once nobody holds its standard error any more.
    await program.kill()
    assert program.exit_code == -9


async def test_until_returns_what_it_saw_and_something_false_once_the_time_is_over() -> None:
    seen = iter([0, "", "there"])
    assert await until(lambda: next(seen), within=60) == "there"
    assert await until(list, within=0.01) == []
    with pytest.raises(AssertionError, match="not true within"):
        await eventually(lambda: False, within=0.01)
