"""The signals that end a program, sent to real ones."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Process
from tests.support.programs import write
from tests.support.stored import stored
from tests.support.until import AT_ONCE, until
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger import lifecycle, replica
from whereby_trigger.process import EXIT_CODE, LATE
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

JOINED = webhook("room.client.joined", room="/visit-1", id="a1")

MEETING = """
import asyncio
import sys
from pathlib import Path
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, lifecycle

lifecycle.INTERRUPT_DRAIN = 0.5
over = Path("over")
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=60)
trigger.when("room.client.joined")(lambda: True)

@trigger.on(TRIGGER_EVENT_SUCCESS)
async def attend(success):
    print("joined", flush=True)
    while not over.exists():
        await asyncio.sleep(0.01)
    print("left", flush=True)

async def main():
    serving = asyncio.create_task(trigger.serve())
    while not trigger.port:
        await asyncio.sleep(0)
    print("port", trigger.port, flush=True)
    await serving

if "serve" in sys.argv:
    asyncio.run(main())
else:
    trigger.start()
print("after", flush=True)
"""


def running(folder: Path, *arguments: str, **secret: str) -> Process:
    program = [sys.executable, str(write(folder, MEETING)), *arguments]
    env = {"WHEREBY_TRIGGER_STORE": f"sqlite:///{folder}/webhooks.db"}
    return Process(program, cwd=folder, env=env | (secret or {"WHEREBY_WEBHOOK_SECRET": SECRET}))


def begin_meeting(process: Process, how: str = "start") -> str:
    """Make the program call its listener, and return the program's URL."""
    port = process.port() if how == "start" else int(process.line("port").split()[1])
    url = f"http://127.0.0.1:{port}/"
    assert deliver(url, JOINED).status == 200
    process.line("joined")
    return url


def is_draining(url: str) -> bool:
    return request("GET", f"{url}readyz").status == 503


@pytest.mark.parametrize("how", ["start", "serve"])
def test_sigterm_lets_work_finish_and_ends_with_0(tmp_path: Path, how: str) -> None:
    with running(tmp_path, how) as process:
        url = begin_meeting(process, how)
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(url))
        assert deliver(url, webhook("room.client.joined", room="/late", id="late")).status == 200
        process.line("joined")
        (tmp_path / "over").touch()
        assert process.wait() == 0
        assert process.output.rstrip().endswith("after")
        assert process.output.count("left") == 2
        assert "Traceback" not in process.output
    assert {record.id: record.state for record in stored(f"sqlite:///{tmp_path}/webhooks.db")} == {
        "a1": State.FIRED,
        "late": State.FIRED,
    }


def test_sigterm_lets_work_finish_even_if_the_file_of_the_secret_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    with running(tmp_path, WHEREBY_WEBHOOK_SECRET_FILE=str(file)) as process:
        url = begin_meeting(process)
        file.unlink()
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(url))
        (tmp_path / "over").touch()
        assert process.wait() == 0
        assert process.output.count("left\n") == 1
        assert "Traceback" not in process.output


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, second: signal.Signals) -> None:
    with running(tmp_path) as process:
        url = begin_meeting(process)
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(url))
        started = time.monotonic()
        assert process.stop(second) == 0
        assert time.monotonic() - started < AT_ONCE
        assert "again: ending now" in process.output
        assert "left" not in process.output
        assert "Traceback" not in process.output


def test_sigint_waits_for_a_short_while_only(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        begin_meeting(process)
        started = time.monotonic()
        assert process.stop(signal.SIGINT) == 0
        assert 0.5 <= time.monotonic() - started < 0.5 + AT_ONCE
        assert "SIGINT: draining for at most 10.5 s" in process.output
        assert "Traceback" not in process.output
    assert lifecycle.INTERRUPT_DRAIN == 10


def test_an_idle_trigger_ends_in_no_time(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(tmp_path) as process:
            process.port()
            started = time.monotonic()
            assert process.stop(number) == 0
            assert time.monotonic() - started < AT_ONCE


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder}/webhooks.db"


@contextlib.contextmanager
def user_program(folder: Path, code: str) -> Iterator[Process]:
    """Run a program of a user for a `with` block, with a store in the folder."""
    program = [sys.executable, "-W", "ignore", str(write(folder, code))]
    environment = {"WHEREBY_WEBHOOK_SECRET": SECRET, "WHEREBY_TRIGGER_STORE": store_of(folder)}
    with Process(program, cwd=folder, env=environment) as process:
        yield process


HANGING = """
import threading
from whereby_trigger import Trigger
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=60)

@trigger.when("room.client.joined")
def hang(webhook):
    print("asked", flush=True)
    threading.Event().wait()

trigger.start()
"""


def test_a_predicate_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with user_program(tmp_path, HANGING) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        assert deliver(url, JOINED).status == 200
        process.line("asked")
        process.popen.send_signal(signal.SIGTERM)
        until(lambda: is_draining(url))
        started = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - started < 0.5 + AT_ONCE
        assert "Traceback" not in process.output
    (record,) = stored(store_of(tmp_path))
    assert record.state is State.PENDING


BLOCKING = """
import time
from whereby_trigger import Trigger
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=60)

@trigger.when("room.client.joined")
async def block(webhook):
    print("asked", flush=True)
    while True:
        time.sleep(0.01)

trigger.start()
"""


def test_signals_after_the_second_do_not_put_off_the_end(tmp_path: Path) -> None:
    """Somebody who waits at a terminal presses Ctrl-C again and again."""
    with user_program(tmp_path, BLOCKING) as process:
        assert deliver(f"http://127.0.0.1:{process.port()}/", JOINED).status == 200
        process.line("asked")
        started = time.monotonic()
        while process.popen.poll() is None and time.monotonic() - started < 10:
            process.popen.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(0.5)
        assert process.popen.poll() == EXIT_CODE
        assert time.monotonic() - started < replica.END_MARGIN + LATE + AT_ONCE
