"""A guarded process: what it gets, what it reports, how it ends, and that it leaves nothing behind."""

import asyncio
import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import uvloop

from tests.assist.programs import child, supervisor
from tests.assist.started import started
from tests.support.presence import Presence
from tests.support.process import Process, arguments, parents
from tests.support.until import eventually
from whereby_trigger.assist.pipes import LONGEST
from whereby_trigger.assist.process import KEPT, Exit, GuardedProcess
from whereby_trigger.clock import boot_time
from whereby_trigger.errors import AssistantError, SystemExhausted, UsageError
from whereby_trigger.leftovers import MARK
from whereby_trigger.process import MOST, many_files

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-I", "-S", "-c"]
MEGABYTE = 1 << 20
FLOOD = 20 * MEGABYTE
"""More than two thousand times the longest line kept, on each stream."""


class Output:
    """Collect the lines of an assistant's output."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def __call__(self, stream: str, text: str) -> None:
        self.lines[stream].append(text)


async def run(
    argv: list[str], *, input: bytes = b"", env: Mapping[str, str] | None = None, output: Output | None = None
) -> Exit:
    async with started(argv, input=input, env=env, line=output) as process:
        return await process.wait()


async def said_by(argv: list[str], *, input: bytes = b"", env: Mapping[str, str] | None = None) -> list[str]:
    output = Output()
    exit = await run(argv, input=input, env=env, output=output)
    assert (exit.code, exit.stderr) == (0, ())
    return output.lines["stdout"]


@pytest.mark.parametrize("code", [0, 1, 69, 75, 255])
async def test_the_exit_code_is_told(code: int) -> None:
    assert await run(["sh", "-c", f"exit {code}"]) == Exit(code, None, ())


async def test_the_signal_that_ended_it_is_told() -> None:
    assert await run(["sh", "-c", "kill -USR1 $$"]) == Exit(None, signal.SIGUSR1, ())


async def test_it_is_told_again_to_who_asks_later() -> None:
    async with started(["true"]) as process:
        assert await process.wait() == await process.wait() == Exit(0, None, ())


async def test_the_input_is_its_stdin_and_ends() -> None:
    webhook = {"id": "1", "note": "ü", "many": ["x"] * 100}
    read = "import json, sys; print(json.dumps(json.load(sys.stdin)))"
    (line,) = await said_by([*PYTHON, read], input=json.dumps(webhook).encode() + b"\n")
    assert json.loads(line) == webhook


async def test_an_input_larger_than_a_pipe_arrives_whole() -> None:
    read = "import sys; print(len(sys.stdin.buffer.read()))"
    assert await said_by([*PYTHON, read], input=b"x" * 3 * MEGABYTE) == [str(3 * MEGABYTE)]


async def test_an_input_that_nobody_reads_hinders_nothing() -> None:
    assert await run(["true"], input=b"x" * MEGABYTE) == Exit(0, None, ())


async def test_an_input_that_nobody_will_read_is_let_go(presence: Presence) -> None:
    before = descriptors()
    async with started(child(presence, "A", "--close-stdio"), input=b"x" * MEGABYTE):
        presence.line("A ticks")
        await eventually(lambda: len(descriptors() - before) == 2)


async def test_its_environment_is_what_it_is_given_and_its_mark() -> None:
    given = {"PATH": os.environ["PATH"], "LC_ALL": "C", "ROOM": "/visit ü \udcff", "EMPTY": ""}
    show = "import os; print(*(name + b'=' + value for name, value in sorted(os.environb.items())), sep='\\n')"
    shown = [line for line in await said_by([*PYTHON, show], env=given) if MARK not in line]
    assert shown == [str(os.fsencode(f"{name}={value}")) for name, value in sorted(given.items())]


async def test_its_program_is_looked_for_on_its_own_path(tmp_path: Path) -> None:
    program = tmp_path / "assist-here"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    assert (await run(["assist-here"], env={"PATH": str(tmp_path)})).code == 7
    with pytest.raises(AssistantError):
        await run(["assist-here"])


async def test_no_argument_of_the_guard_or_the_program_holds_the_input(presence: Presence) -> None:
    async with started(child(presence, "A"), input=b"a secret") as process:
        parent = int(presence.line("here").split()[3])
        for pid in (process.pid, parent):
            assert "a secret" not in arguments(pid)


async def test_it_starts_with_no_signal_blocked_or_ignored_and_nothing_open_but_stdio() -> None:
    show = (
        "import os, signal;"
        "print(*signal.pthread_sigmask(signal.SIG_BLOCK, ()));"
        "print(*(n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN));"
        "print(*(n for n in range(3, 256) if is_open(n)))"
    )
    is_open = "import os\ndef is_open(n):\n try: return bool(os.fstat(n))\n except OSError: return False\n"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        blocked, ignored, descriptors = await said_by([*PYTHON, is_open + show])
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    # Python itself ignores SIGPIPE and, on systems that have it, SIGXFSZ.
    assert (blocked, descriptors) == ("", "")
    assert set(ignored.split()) <= {str(int(signal.SIGPIPE)), str(int(signal.SIGXFSZ))}


async def test_its_output_is_told_line_by_line() -> None:
    output = Output()
    exit = await run(["sh", "-c", "echo one; echo two >&2; printf 'three\\r\\nfour'"], output=output)
    assert output.lines == {"stdout": ["one", "three", "four"], "stderr": ["two"]}
    assert exit.stderr == ("two",)


async def test_a_line_is_told_when_it_is_written_and_not_at_the_end() -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    async with started(["sh", "-c", "echo here; exec sleep 60"], line=lambda _, text: lines.put_nowait(text)):
        async with asyncio.timeout(20):
            assert await lines.get() == "here"


async def test_the_last_lines_of_stderr_are_kept() -> None:
    exit = await run(["sh", "-c", "for i in $(seq 1000); do echo line $i >&2; echo out; done; exit 1"])
    assert exit.stderr == tuple(f"line {number}" for number in range(1001 - KEPT, 1001))


async def test_a_function_that_raises_on_a_line_loses_neither_the_rest_nor_the_end() -> None:
    raised: list[object] = []
    seen: list[str] = []

    def line(stream: str, text: str) -> None:
        seen.append(text)
        if text == "one":
            raise RuntimeError(text)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    async with started(["sh", "-c", "echo one; echo two"], line=line) as process:
        assert (await process.wait()).code == 0
    assert seen == ["one", "two"]
    assert len(raised) == 1


@pytest.mark.parametrize(
    ("line", "logged"),
    [("'x' * 99 + '\\n'", True), ("'x' * 99 + '\\n'", False), ("'x' * (1 << 20) + '\\n'", True), ("'x' * 4096", True)],
)
async def test_a_flood_of_output_is_taken_without_stalling_the_loop_or_filling_memory(line: str, logged: bool) -> None:
    flood = (
        f"import sys\nline = {line}\n"
        f"for _ in range({FLOOD} // len(line)):\n sys.stdout.write(line)\n sys.stderr.write(line)\n"
    )
    held = 0

    def take(stream: str, text: str) -> None:
        nonlocal held
        held = max(held, len(text))

    longest, done = 0.0, asyncio.Event()

    async def beat() -> None:
        nonlocal longest
        while not done.is_set():
            # The loop's own share: on a busy machine, a turn may last long though there is little to do in it.
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    beating = asyncio.create_task(beat())
    async with started([*PYTHON, flood], line=take if logged else None) as process:
        exit = await process.wait()
    done.set()
    await beating
    assert exit.code == 0
    assert max(map(len, exit.stderr)) <= LONGEST + 1
    assert held <= LONGEST + 1
    assert longest < 0.25


@pytest.mark.usefixtures("guard_by_group")
async def test_nobody_waits_for_one_that_got_away_with_the_stdio() -> None:
    get_away = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    before, output = descriptors(), Output()
    async with asyncio.timeout(20):
        assert (await run([*PYTHON, get_away], input=b"x" * MEGABYTE, output=output)).code == 0
    assert descriptors() == before
    # Another test's trigger may have found it by its mark already.
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(output.lines["stdout"][0]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("no-such-program", "no such program"),
        ("./no/such/program", "no such program"),
        ("not-executable", "not an executable file"),
        ("not-a-program", "it is not a program"),
        ("no-interpreter", "interpreter that its first line names"),
        (".", "not an executable file"),
        ("a\0b", "null"),
        ("", "Invalid argument"),
    ],
)
async def test_a_program_that_cannot_be_started_is_told_clearly(program: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    (tmp_path / "not-a-program").write_text("some words\n")
    (tmp_path / "no-interpreter").write_text("#!/no/such/interpreter\n")
    for name in ("not-a-program", "no-interpreter"):
        (tmp_path / name).chmod(0o755)
    known = str(tmp_path / program) if (tmp_path / program).is_file() else program
    before = descriptors(), children()
    with pytest.raises(AssistantError, match=why) as caught:
        await run([known])
    assert isinstance(caught.value, UsageError)
    assert repr(program)[1:-1].encode().decode("unicode_escape") in str(caught.value)
    assert (descriptors(), children()) == before


async def test_an_environment_that_no_process_can_have_is_told_clearly() -> None:
    with pytest.raises(AssistantError, match="true"):
        await run(["true"], env={"A=B": "\0"})


async def test_a_missing_python_is_told_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(AssistantError, match="/no/such/python"):
        await run(["true"])


async def test_a_guard_that_does_not_come_up_is_told_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whereby_trigger.assist.process.GUARD", Path("/no/such/guard.py"))
    before = children()
    with pytest.raises(AssistantError, match=r"/no/such/guard\.py"):
        await run(["true"])
    assert children() == before


async def test_windows_is_told_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(AssistantError, match="coroutine"):
        await GuardedProcess.start(["true"], env={}, input=b"", deadline=0, grace=0)


async def test_a_start_that_is_cancelled_leaves_nothing(presence: Presence) -> None:
    before = descriptors(), children()
    start = asyncio.create_task(
        GuardedProcess.start(
            child(presence, "A"), env=os.environ, input=b"", deadline=boot_time() + 60, grace=1, line=None
        )
    )
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait({start}, timeout=20)
    assert start.cancelled()
    assert (descriptors(), children()) == before


async def test_a_start_that_is_cancelled_and_fails_besides_leaves_no_error_that_nobody_retrieves() -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    start = asyncio.create_task(
        GuardedProcess.start(["/no/such/program"], env={}, input=b"", deadline=boot_time() + 60, grace=1)
    )
    await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait({start}, timeout=20)
    assert start.cancelled()
    del start
    gc.collect()
    assert errors == []


@pytest.mark.parametrize("missing", ["LineReader", "Feed"])
async def test_a_guard_for_which_there_is_no_memory_here_is_gone_with_its_pipes_before_it_starts_anything(
    presence: Presence, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def out_of_memory(*given: object) -> None:
        raise MemoryError

    before = descriptors(), children()
    monkeypatch.setattr(f"whereby_trigger.assist.process.{missing}", out_of_memory)
    with pytest.raises(SystemExhausted, match="out of memory"):
        await run(child(presence, "A"))
    assert (descriptors(), children()) == before


async def test_waiting_can_be_given_up_and_the_process_stays(presence: Presence) -> None:
    async with started(child(presence, "A")) as process:
        presence.line("A here")
        waiting = asyncio.create_task(process.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        presence.line("A ticks")
        process.stop(5)
        assert (await process.wait()).signal == signal.SIGTERM


async def test_stop_and_extend_after_the_end_do_nothing() -> None:
    async with started(["true"]) as process:
        await process.wait()
        before = descriptors()
        process.stop(5)
        process.extend(boot_time() + 60)
        assert descriptors() == before


async def test_two_hundred_runs_leave_no_descriptor_and_no_zombie() -> None:
    before = descriptors(), children()
    for number in range(0, 200, 10):
        exits = await asyncio.gather(
            *(run(["sh", "-c", f"cat >/dev/null; exit {number + one}"], input=b"x") for one in range(10))
        )
        assert [exit.code for exit in exits] == list(range(number, number + 10))
    assert (descriptors(), children()) == before
    assert not [task for task in asyncio.all_tasks() if "guard" in task.get_name()]


async def test_ten_stopped_at_once_are_gone_at_once() -> None:
    async with asyncio.timeout(20):
        processes = await asyncio.gather(
            *(
                GuardedProcess.start(
                    ["sleep", "60"], env=os.environ, input=b"", deadline=boot_time() + 60, grace=5, line=None
                )
                for _ in range(10)
            )
        )
        assert len({process.pid for process in processes}) == 10
        for process in processes:
            process.stop(5)
        exits = await asyncio.gather(*(process.wait() for process in processes))
    assert {exit.signal for exit in exits} == {signal.SIGTERM}


def test_a_supervisor_without_stdio_can_have_an_assistant(presence: Presence) -> None:
    command = supervisor(60, 1, program=child(presence, "A"))
    closed = 'exec "$@" <&- 3>&1 2>&-'
    with Process(["sh", "-c", closed, "sh", *command], cwd=ROOT) as boss:
        presence.line("A here")
        boss.popen.send_signal(signal.SIGUSR1)
        assert "signal=15" in boss.line("ended")
        presence.everybody_gone()


def test_it_works_on_uvloop_as_it_does_on_asyncio() -> None:
    output = Output()
    exit = uvloop.run(run(["sh", "-c", "cat; echo err >&2; exit 5"], input=b"in\n" * 100_000, output=output))
    assert exit == Exit(5, None, ("err",))
    assert output.lines["stdout"] == ["in"] * 100_000


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


def children() -> set[int]:
    """Return the process ids of this process's children, including zombies."""
    return {pid for pid, parent in parents().items() if parent == os.getpid()}


async def test_an_assistant_may_open_as_many_files_as_our_shell_allowed_not_as_we() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = min(soft, 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with many_files():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, MOST), hard)
            said = await said_by(["sh", "-c", "ulimit -Sn; env"])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert said[0] == str(few)
    assert not [line for line in said if "GUARD" in line]
