"""What outlives its guard is found and ended before anything else runs in its room, and nothing else is touched."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.assist.programs import child, supervisor
from tests.assist.started import started
from tests.assist.test_guard import is_here
from tests.support.guarding import replica_that_runs
from tests.support.place import Place
from tests.support.presence import Presence
from tests.support.process import Process, whereby_trigger
from tests.support.rooms import ask, take_one
from tests.support.stores import KINDS
from tests.support.until import eventually, until
from whereby_trigger import leftovers
from whereby_trigger.leftovers import MARK, sweep
from whereby_trigger.store import Store

ROOT = Path(__file__).parents[2]
REAL_OPEN = open
RUN = uuid4().hex

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the environment of a process")


@pytest.fixture(params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with KINDS[request.param](tmp_path) as place:
        yield place


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.replica()
    await store.open(lambda: None)
    yield store
    await store.close()


def swept(*whose: str) -> list[str]:
    """Sweep, and return what was found of this test run: other programs on this machine may have left something too."""
    return [run for run in sweep(whose) if run.startswith(RUN)]


def runs(pid: int) -> bool:
    """Return False if a process is gone, or is a zombie."""
    return os.path.lexists(f"/proc/{pid}/exe") and bool(Path(f"/proc/{pid}/cmdline").read_bytes())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def namespace() -> str:
    return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))


def has_mark(pid: int, mark: str) -> bool:
    with suppress(ProcessLookupError):
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    # Another trigger on this machine was there first.
    return True


@contextmanager
def marked(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process with a mark, and kill it at the end."""
    with subprocess.Popen(["sleep", "60"], env=os.environ | {MARK: mark}) as process:
        try:
            until(lambda: process.poll() is not None or has_mark(process.pid, mark))
            yield process
        finally:
            process.kill()


@pytest.fixture
def gone() -> int:
    """Return the process id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.anyio
@pytest.mark.parametrize("options", [(), ("--child-ignores-term",)], ids=["obeys TERM", "ignores TERM"])
async def test_a_run_whose_guard_was_killed_is_over_when_what_left_its_session_is_gone_too(
    presence: Presence, options: tuple[str, ...]
) -> None:
    async with started(child(presence, "A", "--daemon", "B", *options)) as assistant:
        _, guard = is_here(presence, "A")
        pid, _ = is_here(presence, "B")
        os.kill(guard, signal.SIGKILL)
        assert (await assistant.wait()).signal == signal.SIGKILL
        assert not runs(pid)
        presence.everybody_gone(within=1)


def test_what_outlives_a_supervisor_and_its_guard_is_ended_by_whoever_looks_next(presence: Presence) -> None:
    with Process(supervisor(60, 2, program=child(presence, "A", "--daemon", "B")), cwd=ROOT) as boss:
        _, guard = is_here(presence, "A")
        is_here(presence, "B")
        boss.popen.send_signal(signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        boss.kill()
        swept()
        presence.everybody_gone(within=1)


@pytest.mark.anyio
async def test_what_has_its_guard_is_left_alone(presence: Presence) -> None:
    async with started(child(presence, "A", "--child", "B", "--daemon", "C"), run=RUN):
        for name in "ABC":
            is_here(presence, name)
        for _ in range(10):
            assert swept() == []
        for name in "ABC":
            presence.line(f"{name} ticks")


@pytest.mark.anyio
async def test_what_has_a_frozen_guard_is_left_alone_unless_its_replica_is_known_to_be_dead(presence: Presence) -> None:
    async with started(child(presence, "A"), run=f"{RUN}-1-1") as assistant:
        _, guard = is_here(presence, "A")
        os.kill(guard, signal.SIGSTOP)
        assert swept() == swept(RUN[:-1]) == swept(f"{RUN}-1-11") == swept(f"{RUN}-1-1-1") == []
        assert await leftovers.end([RUN])
        presence.everybody_gone(within=1)
        os.kill(guard, signal.SIGCONT)
        assert (await assistant.wait()).signal == signal.SIGKILL


def test_a_guards_number_that_another_process_has_by_now_protects_nobody() -> None:
    with marked(f"{RUN}:{os.getpid()}:{namespace()}") as process:
        assert swept() == [RUN]
        assert process.wait(5) == -signal.SIGKILL


def test_what_cannot_be_judged_is_left_alone(gone: int) -> None:
    for mark in (
        "",
        "run",
        "run:",
        f"{RUN}:{gone}",
        f"{RUN}:{gone}:1",
        *(f"{RUN}:{odd}:{namespace()}" for odd in ("-1", "x", "٣", "0", "9" * 5000)),
    ):
        with marked(mark) as process:
            assert swept() == []
            assert process.poll() is None


def test_a_zombie_is_no_leftover(gone: int) -> None:
    with marked(f"{RUN}:{gone}:{namespace()}") as process:
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: ") Z " in Path(f"/proc/{process.pid}/stat").read_text())
        assert swept() == []


@pytest.mark.anyio
async def test_a_search_that_fails_for_want_of_files_finds_nobody_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", none_left)
    assert not await leftovers.end(["replica"])


@pytest.fixture
def unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a process whose environment blocks its readers, as the kernel may: a FIFO takes its place."""
    fifo = tmp_path / "environ"
    os.mkfifo(fifo)
    in_place = True
    with subprocess.Popen(["sleep", "60"]) as process:

        def opened(path: str, *arguments: Any, **options: Any) -> Any:
            is_it = in_place and path == f"/proc/{process.pid}/environ"
            return REAL_OPEN(fifo if is_it else path, *arguments, **options)

        def nobody_waits() -> bool:
            # Opening it for writing as well releases those that wait for it.
            os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))
            return process.pid not in leftovers._being_looked_at

        monkeypatch.setattr("builtins.open", opened)
        yield
        in_place = False
        process.kill()
        until(nobody_waits)


@pytest.mark.anyio
@pytest.mark.usefixtures("unseen")
async def test_a_process_that_holds_up_whoever_looks_at_it_holds_up_no_event_loop_and_hides_no_other(
    caplog: pytest.LogCaptureFixture, gone: int
) -> None:
    with marked(f"{RUN}-1-1:{gone}:{namespace()}") as left:
        async with asyncio.timeout(10):
            # A process that cannot be read may be the one that is searched for.
            for _ in range(2):
                assert not await leftovers.end([RUN])
        assert left.wait(5) == -signal.SIGKILL
    assert "inspecting a process hangs" in caplog.text


@pytest.mark.anyio
@pytest.mark.usefixtures("unseen")
async def test_the_search_of_every_few_seconds_holds_up_no_event_loop_either() -> None:
    searching = asyncio.create_task(leftovers.keep_clean())
    # One turn of the loop after the one in which it begins.
    for _ in range(2):
        await asyncio.sleep(0)
    assert not searching.done()
    searching.cancel()


@pytest.mark.anyio
async def test_a_killed_replicas_room_is_taken_over_when_its_assistant_has_left(
    place: Place,
    store: Store,
    presence: Presence,
) -> None:
    await ask(store)
    with replica_that_runs(place.url, 0.5, child(presence, "A", "--ignore-term")) as replica:
        pid, _ = is_here(presence, "A")
        replica.kill()
        await place.outlast_the_dead(store)
        await eventually(store.take_over)
        assert not runs(pid)
    assert (await take_one(store)).attempt == 2


@pytest.mark.anyio
async def test_a_replica_and_guards_that_are_killed_at_once_leave_nobody_in_a_room_that_is_taken_over(
    place: Place,
    store: Store,
    presence: Presence,
) -> None:
    await ask(store)
    with replica_that_runs(place.url, 2, child(presence, "A", "--child", "B", "--daemon", "C")) as replica:
        pids = [is_here(presence, name)[0] for name in "ABC"]
        guard = parent_of(pids[0])
        os.kill(replica.popen.pid, signal.SIGSTOP)
        os.kill(guard, signal.SIGKILL)
        replica.kill()
        await place.outlast_the_dead(store)
        await eventually(store.take_over)
        assert not any(map(runs, pids))


APP = """
from whereby_trigger import Trigger

trigger = Trigger(port=0, host="127.0.0.1")
trigger.assistant_command(["sleep", "60"])
"""


def test_a_trigger_that_starts_ends_what_a_killed_one_and_its_guards_left(tmp_path: Path, gone: int) -> None:
    (tmp_path / "app.py").write_text(APP)
    with marked(f"{RUN}:{gone}:{namespace()}") as left, Process(whereby_trigger("start", "app.py"), cwd=tmp_path):
        # Another trigger on this machine may have ended it: not every test knows of the others.
        assert left.wait(20) == -signal.SIGKILL
