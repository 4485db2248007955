"""However the supervisor ends, the assistant ends, with everything it started."""

import asyncio
import errno
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.assist.programs import child, node_child, supervisor
from tests.assist.started import started
from tests.support.presence import Presence
from tests.support.process import Process
from tests.support.until import eventually
from whereby_trigger.assist import guard, process
from whereby_trigger.assist.process import GUARD
from whereby_trigger.clock import boot_time

ROOT = Path(__file__).parents[2]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a guard the orphans below it")


def is_here(presence: Presence, name: str) -> tuple[int, int]:
    """Wait until a program is there, and return its process id and its parent's."""
    pid, parent = presence.line(f"{name} here").split()[2:4]
    return int(pid), int(parent)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def last_tick(lines: list[str]) -> float:
    return max(float(line.split()[2]) for line in lines if " ticks " in line)


def test_a_supervisor_killed_with_9_takes_its_assistant_with_it(presence: Presence) -> None:
    with Process(supervisor(60, 2, program=child(presence, "A", "--child", "B")), cwd=ROOT) as boss:
        is_here(presence, "A")
        is_here(presence, "B")
        boss.kill()
        presence.everybody_gone()


def test_an_assistant_that_ignores_term_is_killed_soon_after_its_supervisor_was(presence: Presence) -> None:
    with Process(supervisor(60, 30, program=child(presence, "A", "--ignore-term")), cwd=ROOT) as boss:
        is_here(presence, "A")
        boss.kill()
        killed = boot_time()
        assert last_tick(presence.everybody_gone()) < killed + guard.SHORT_GRACE + 1


def test_a_fork_that_holds_the_dead_supervisors_pipes_keeps_no_assistant_alive(presence: Presence) -> None:
    with Process(supervisor(60, 2, "--fork", program=child(presence, "A")), cwd=ROOT) as boss:
        is_here(presence, "A")
        boss.line("forked")
        boss.kill()
        presence.everybody_gone()


@pytest.mark.parametrize("options", [(), ("--ignore-term",)], ids=["obeys TERM", "ignores TERM"])
def test_nothing_of_a_frozen_supervisors_assistant_runs_past_the_deadline(
    presence: Presence, options: tuple[str, ...]
) -> None:
    program = child(presence, "A", *options, "--child", "B", "--child-ignores-term")
    with Process(supervisor(2, 0.4, "--keep", program=program), cwd=ROOT) as boss:
        is_here(presence, "A")
        is_here(presence, "B")
        presence.line("B ticks")
        boss.popen.send_signal(signal.SIGSTOP)
        frozen = boot_time()
        last = last_tick(presence.everybody_gone())
        boss.popen.send_signal(signal.SIGCONT)
        assert last < frozen + 2
        assert "signal=" in boss.line("ended")


def test_a_deadline_that_is_moved_in_time_ends_nothing(presence: Presence) -> None:
    with Process(supervisor(1.5, 0.2, "--keep", program=child(presence, "A")), cwd=ROOT):
        is_here(presence, "A")
        begun = boot_time()
        while float(presence.line("A ticks").split()[2]) < begun + 2:
            continue


def test_the_end_of_the_thread_that_started_it_ends_no_assistant(presence: Presence) -> None:
    with Process(supervisor(60, 2, "--thread", program=child(presence, "A")), cwd=ROOT) as boss:
        boss.line("the thread has ended")
        ended = boot_time()
        while float(presence.line("A ticks").split()[2]) < ended + 0.3:
            continue
        boss.kill()
        presence.everybody_gone()


def test_the_end_of_the_loop_that_started_it_ends_an_assistant(presence: Presence) -> None:
    with Process(supervisor(60, 2, "--abandon", program=child(presence, "A", "--ignore-term")), cwd=ROOT) as boss:
        is_here(presence, "A")
        boss.popen.send_signal(signal.SIGUSR1)
        boss.line("the loop has ended")
        presence.everybody_gone()


@pytest.mark.anyio
async def test_a_ctrl_c_or_term_at_the_guard_does_nothing(presence: Presence) -> None:
    async with started(child(presence, "A")) as assistant:
        pid, parent = is_here(presence, "A")
        assert (pid, os.getpgid(pid), os.getsid(pid)) == (assistant.pid,) * 3
        assert len({os.getsid(pid), os.getsid(parent), os.getsid(0)}) == 3
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(parent, number)
        signalled = boot_time()
        while float(presence.line("A ticks").split()[2]) < signalled + 0.3:
            continue


@pytest.mark.anyio
@only_linux
async def test_a_killed_guard_takes_its_assistant_with_it(presence: Presence) -> None:
    async with started(child(presence, "A", "--child", "B")) as assistant:
        _, parent = is_here(presence, "A")
        is_here(presence, "B")
        os.kill(parent, signal.SIGKILL)
        exit = await assistant.wait()
        assert (exit.code, exit.signal) == (None, signal.SIGKILL)
        assert "guard" in exit.stderr[-1]
        presence.everybody_gone()


@only_linux
def test_an_assistant_ends_with_its_guard_though_its_supervisor_is_frozen(presence: Presence) -> None:
    with Process(supervisor(60, 2, program=child(presence, "A")), cwd=ROOT) as boss:
        _, parent = is_here(presence, "A")
        boss.popen.send_signal(signal.SIGSTOP)
        os.kill(parent, signal.SIGKILL)
        presence.everybody_gone()


@pytest.mark.anyio
async def test_a_frozen_guard_is_done_without(presence: Presence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SLACK", 0.1)
    async with started(child(presence, "A")) as assistant:
        _, parent = is_here(presence, "A")
        os.kill(parent, signal.SIGSTOP)
        assistant.stop(0)
        assert (await assistant.wait()).signal == signal.SIGKILL
        presence.everybody_gone()


@pytest.mark.anyio
@only_linux
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_guard_that_freezes_after_its_assistants_exit_is_done_without(
    presence: Presence, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr(process, "SLACK", 0.1)
    async with started(child(presence, "A", "--child", "B", "--child-ignores-term", "--exit", "0")) as assistant:
        _, parent = is_here(presence, "A")
        await eventually(assistant.has_exited)
        os.kill(parent, signal.SIGSTOP)
        if stopped:
            assistant.stop(0)
        async with asyncio.timeout(10):
            assert (await assistant.wait()).code == 0
        presence.everybody_gone()


@pytest.mark.anyio
@pytest.mark.usefixtures("either_guard")
async def test_what_an_assistant_leaves_behind_in_its_group_is_ended(presence: Presence) -> None:
    async with started(child(presence, "A", "--child", "B", "--exit", "3"), grace=0.2) as assistant:
        assert (await assistant.wait()).code == 3
        presence.everybody_gone()


@pytest.mark.anyio
@pytest.mark.usefixtures("either_guard")
async def test_what_an_assistant_leaves_behind_is_killed_where_it_ignores_term(presence: Presence) -> None:
    program = child(presence, "A", "--child", "B", "--child-ignores-term", "--exit", "0")
    async with started(program, grace=0.2) as assistant:
        assert (await assistant.wait()).code == 0
        presence.everybody_gone()


@pytest.mark.anyio
@only_linux
@pytest.mark.parametrize("options", [(), ("--child-ignores-term",)], ids=["obeys TERM", "ignores TERM"])
async def test_an_orphan_in_a_session_of_its_own_is_ended_too(presence: Presence, options: tuple[str, ...]) -> None:
    async with started(child(presence, "A", "--daemon", "B", *options), grace=0.2) as assistant:
        is_here(presence, "A")
        pid, _ = is_here(presence, "B")
        assert os.getsid(pid) != assistant.pid
        assistant.stop(0.2)
        await assistant.wait()
        presence.everybody_gone()


@pytest.mark.anyio
@only_linux
async def test_an_orphan_that_ends_by_itself_leaves_no_zombie(presence: Presence) -> None:
    async with started(child(presence, "A", "--daemon", "B")) as assistant:
        is_here(presence, "A")
        pid, _ = is_here(presence, "B")
        os.kill(pid, signal.SIGKILL)
        while exists(pid):
            presence.line("A ticks")
        assistant.stop(0)
        await assistant.wait()


@pytest.mark.anyio
@pytest.mark.usefixtures("either_guard")
async def test_a_program_behind_a_shell_is_ended_with_it(presence: Presence) -> None:
    script = shlex.join(child(presence, "A", "--ignore-term")) + "; true"
    async with started(["sh", "-c", script]) as assistant:
        pid, _ = is_here(presence, "A")
        assert pid != assistant.pid
        assistant.stop(0.2)
        await assistant.wait()
        presence.everybody_gone()


@pytest.mark.anyio
@pytest.mark.usefixtures("either_guard")
async def test_a_program_behind_a_shell_has_its_whole_grace_when_the_shell_has_ended(presence: Presence) -> None:
    script = shlex.join(child(presence, "A", "--polite")) + "; true"
    async with started(["sh", "-c", script], grace=0.1) as assistant:
        is_here(presence, "A")
        assistant.stop(10)
        assert (await assistant.wait()).signal == signal.SIGTERM
        assert "A has left" in presence.everybody_gone()


@pytest.mark.anyio
@needs_node
async def test_a_node_assistant_leaves_politely(presence: Presence) -> None:
    async with started(node_child(presence, "A"), input=b'{"webhook": null}\n') as assistant:
        assert '{"webhook": null}' in presence.line("A here")
        assistant.stop(10)
        exit = await assistant.wait()
        assert (exit.code, exit.signal) == (0, None)
        assert "A has left" in presence.everybody_gone()


@needs_npm
@pytest.mark.parametrize("ended_by", ["kill -9 of the supervisor", "the deadline", "stop"])
def test_a_node_assistant_behind_npm_start_is_ended_with_it(presence: Presence, tmp_path: Path, ended_by: str) -> None:
    command = shlex.join(node_child(presence, "A"))
    (tmp_path / "package.json").write_text(json.dumps({"name": "a", "scripts": {"start": command}}))
    npm = ["npm", "--prefix", str(tmp_path), "start"]
    lease = 60.0 if ended_by.startswith("kill") else 4.0
    with Process(supervisor(lease, 1, "--keep", program=npm), cwd=ROOT) as boss:
        is_here(presence, "A")
        if ended_by == "the deadline":
            boss.popen.send_signal(signal.SIGSTOP)
        elif ended_by == "stop":
            boss.popen.send_signal(signal.SIGUSR1)
        else:
            boss.kill()
        assert "A has left" in presence.everybody_gone()


@pytest.mark.anyio
async def test_an_assistant_that_closes_its_stdio_is_kept_and_ended_like_any_other(presence: Presence) -> None:
    async with started(child(presence, "A", "--close-stdio")) as assistant:
        is_here(presence, "A")
        for _ in range(5):
            presence.line("A ticks")
        assistant.stop(5)
        assert (await assistant.wait()).signal == signal.SIGTERM
        presence.everybody_gone()


@pytest.mark.anyio
async def test_a_stop_that_is_more_urgent_than_the_last_takes_effect(presence: Presence) -> None:
    async with started(child(presence, "A", "--ignore-term")) as assistant:
        is_here(presence, "A")
        assistant.stop(50)
        presence.line("A ticks")
        assistant.stop(0.1)
        async with asyncio.timeout(20):
            assert (await assistant.wait()).signal == signal.SIGKILL


@pytest.mark.anyio
async def test_an_assistant_is_sent_term_once(presence: Presence) -> None:
    async with started(child(presence, "A", "--ignore-term")) as assistant:
        is_here(presence, "A")
        assistant.stop(0.3)
        assert presence.everybody_gone().count("A was told to leave") == 1


@pytest.mark.anyio
async def test_a_stops_grace_does_not_outlast_the_deadline(presence: Presence) -> None:
    async with started(child(presence, "A", "--ignore-term"), lease=1.5, grace=0.1) as assistant:
        deadline = boot_time() + 1.5
        is_here(presence, "A")
        assistant.stop(50)
        assert last_tick(presence.everybody_gone()) < deadline


@pytest.mark.anyio
async def test_a_deadline_moved_after_term_was_sent_saves_nobody(presence: Presence) -> None:
    async with started(child(presence, "A", "--ignore-term"), lease=4, grace=1) as assistant:
        is_here(presence, "A")
        presence.line("A was told to leave")
        assistant.extend(boot_time() + 60)
        async with asyncio.timeout(20):
            await assistant.wait()


def test_a_guard_starts_nothing_past_the_deadline(presence: Presence) -> None:
    assert told_by_a_guard(child(presence, "A"), boot_time() - 1, os.getpid()) == f"failed {errno.ETIMEDOUT}\n"


def test_a_guard_whose_supervisor_is_gone_already_starts_nothing(presence: Presence) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert told_by_a_guard(child(presence, "A"), boot_time() + 60, gone.pid) == f"failed {errno.ETIMEDOUT}\n"


def test_a_guard_that_starts_slowly_hears_that_its_deadline_was_moved(presence: Presence) -> None:
    told = told_by_a_guard(["true"], boot_time() - 1, os.getpid(), f"deadline {boot_time() + 60}\n")
    assert re.fullmatch(r"started [0-9]+\nexited 0\n", told)


def told_by_a_guard(program: list[str], deadline: float, supervisor: int, heard: str = "") -> str:
    here, there = socket.socketpair()
    with here, there:
        here.send(heard.encode())
        told = (there.fileno(), supervisor, deadline, 1, 1, -1, "run")
        command = [sys.executable, "-I", "-S", str(GUARD), *map(str, told), *program]
        subprocess.run(command, pass_fds=(there.fileno(),), stdin=subprocess.DEVNULL, timeout=20, check=True)
        there.close()
        return here.recv(4096).decode()


class Waiting:
    """Stand in for select and the clock: pass the time, and count how often the guard looks."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: list[float] = []

    def select(self, *_: object) -> tuple[list[int], list[int], list[int]]:
        self.looks.append(self.now)
        self.now += float(_[3])  # type: ignore[arg-type]
        return [], [], []


class Staying(guard.Family):
    """Stand in for an assistant that stays for a while after it was killed."""

    def __init__(self, waiting: Waiting, until: float) -> None:
        self.code = None
        self._waiting, self._until = waiting, until
        self.killed_at: list[float] = []

    def reap(self) -> bool:
        return self._waiting.now < self._until

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        self.killed_at.append(self._waiting.now)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """The clock and the sleep of the guards of a test."""
    waiting = Waiting()
    monkeypatch.setattr(guard, "clock", lambda: waiting.now)
    monkeypatch.setattr(guard, "select", waiting)
    return waiting


def test_a_guard_that_waits_for_an_end_looks_less_and_less_often(waiting: Waiting) -> None:
    """50 looks a second took 1.2 % of a core: a drain with 100 assistants kept all of one busy until they had left."""
    with socket.socket() as control:
        told = guard.Guard(control.fileno(), os.getppid(), 1000, 1, 1)
        told._end_by(10)
        family = Staying(waiting, 12)
        told.watch(family, -1)
    assert waiting.looks[:4] == pytest.approx([0, 0.02, 0.04, 0.06])
    assert len(waiting.looks) < 60
    assert family.killed_at[0] == pytest.approx(10)
    assert family.killed_at[1] - family.killed_at[0] <= 0.02
    assert max(after - before for before, after in itertools.pairwise(waiting.looks)) <= guard.LOOK_EVERY


def test_a_guard_that_waits_for_an_end_does_not_miss_its_deadline(waiting: Waiting) -> None:
    with socket.socket() as control:
        told = guard.Guard(control.fileno(), os.getppid(), 20, 1, 1)
        told._end_by(60)
        family = Staying(waiting, 20)
        told.watch(family, -1)
    assert family.killed_at[0] == pytest.approx(20 - guard.KILL_EARLIER)


def test_the_guard_reads_the_clock_that_leases_are_kept_by() -> None:
    before = boot_time()
    assert before <= guard.clock() <= boot_time()


def test_the_guard_imports_nothing_of_ours_and_little_else() -> None:
    code = f"import sys; exec(open({str(GUARD)!r}).read(), {{'__name__': 'guard'}}); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    modules = set(shown.split())
    assert "select" in modules
    assert not {"whereby_trigger", "asyncio", "subprocess", "json", "re", "typing"} & modules
