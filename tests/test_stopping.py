"""A stop ends the process of a program that serves, whatever still runs in it, and nobody else's."""

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.process import Process, whereby_trigger
from tests.support.programs import write
from tests.support.until import AT_ONCE
from tests.support.whereby import SECRET, deliver
from whereby_trigger.testing import webhook

BESIDE = """
import asyncio
import threading
from whereby_trigger import Trigger, replica

replica.DRAIN_MARGIN = 0.1
trigger = Trigger(secret='s', host="127.0.0.1", port=0, drain_timeout=0, stop_grace=0)

async def main():
    async with trigger:
        trigger.stop()
        threading.Event().wait(1.5)
        print("went on with", trigger.port > 0, flush=True)

asyncio.run(main())
"""


def test_a_stop_within_the_block_ends_neither_the_block_nor_the_process(tmp_path: Path) -> None:
    with Process([sys.executable, str(write(tmp_path, BESIDE))], cwd=tmp_path) as process:
        assert process.wait() == 0
        assert process.output == "went on with True\n"


SERVING = """
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from whereby_trigger import Trigger, process, replica

replica.DRAIN_MARGIN, replica.CLOSE_MARGIN, process.AT_LEAST = 2.0, 1.0, 1.0
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=0, stop_grace=0.1)
trigger.when("assistant.requested")(lambda: True)
own = ThreadPoolExecutor(1)

def long_job():
    threading.Event().wait()

{user_code}

if __name__ == "__main__":
    trigger.start()
    threading.Event().wait(2.5)
    print("after", flush=True)
"""

ASSISTANT_IN_A_THREAD = """
@trigger.assistant
async def attend(session):
    print("running", flush=True)
    await asyncio.to_thread(long_job)
"""

ASSISTANT_IN_A_THREAD_OF_ITS_OWN = """
@trigger.assistant
async def attend(session):
    print("running", flush=True)
    await asyncio.get_running_loop().run_in_executor(own, long_job)
"""

ASSISTANTS_IN_EVERY_THREAD_OF_THE_LOOP = """
@trigger.assistant
async def attend(session):
    print("running", flush=True)
    asyncio.get_running_loop().set_default_executor(everybodys)
    await asyncio.to_thread(long_job)

everybodys = ThreadPoolExecutor(1)
"""

LISTENER_THAT_STAYS = """
@trigger.on("assistant.requested")
async def stay():
    print("running", end="")
    print(flush=True)
    print("kept back", end=" ")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""

LISTENER_THAT_ENDS = """
@trigger.on("assistant.requested")
async def stay():
    print("running", flush=True)
"""


def serving(folder: Path, user_code: str, *, start: bool = False) -> Process:
    app = write(folder, SERVING.replace("{user_code}", user_code))
    program = whereby_trigger("start", app.name) if start else [sys.executable, app.name]
    return Process(program, cwd=folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET})


def begin(process: Process) -> None:
    requested = webhook("assistant.requested", room="/visit-1")
    assert deliver(f"http://127.0.0.1:{process.port()}/", requested).status == 200
    process.line("running")


@pytest.mark.parametrize("start", [False, True], ids=["program", "command line"])
@pytest.mark.parametrize(
    ("user_code", "left"),
    [(ASSISTANT_IN_A_THREAD, "long_job at app.py:12"), (LISTENER_THAT_STAYS, "stay at app.py:22")],
    ids=["a thread", "a task"],
)
def test_what_outlasts_the_drain_is_named_and_ends_with_the_process(
    tmp_path: Path, user_code: str, left: str, start: bool
) -> None:
    with serving(tmp_path, user_code, start=start) as process:
        begin(process)
        assert process.stop() == 0
        assert '"stopped"' in process.output
        assert f'"message": "ended while this still ran: {left}"' in process.output
        assert ("kept back" in process.output) is (user_code == LISTENER_THAT_STAYS)
        assert "Traceback" not in process.output


@pytest.mark.parametrize("start", [False, True], ids=["program", "command line"])
def test_assistants_that_hold_every_thread_of_the_loop_hold_up_no_end(tmp_path: Path, start: bool) -> None:
    with serving(tmp_path, ASSISTANTS_IN_EVERY_THREAD_OF_THE_LOOP, start=start) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        for room in ("/visit-1", "/visit-2", "/visit-3"):
            assert deliver(url, webhook("assistant.requested", room=room)).status == 200
            process.line("running")
        began = time.monotonic()
        assert process.stop() == 0
        # No drain, a grace of 0.1 s, and 2 s for what must return.
        assert time.monotonic() - began < 2.1 + AT_ONCE
        assert '"stopped"' in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_outlasts_the_loop_at_once(tmp_path: Path, number: signal.Signals) -> None:
    patient = ASSISTANTS_IN_EVERY_THREAD_OF_THE_LOOP + "\nreplica.DRAIN_MARGIN = 60\n"
    with serving(tmp_path, patient, start=True) as process:
        begin(process)
        process.popen.send_signal(signal.SIGTERM)
        process.line('"stopped"')
        began = time.monotonic()
        assert process.stop(number) == 0
        assert time.monotonic() - began < AT_ONCE
        assert "Traceback" not in process.output


HANGING_DISK = """
from whereby_trigger.store.sqlite import lock

lock.LifeLock.close = lambda self: threading.Event().wait()
"""


def test_a_store_that_does_not_close_holds_up_no_end(tmp_path: Path) -> None:
    with serving(tmp_path, HANGING_DISK, start=True) as process:
        process.port()
        began = time.monotonic()
        assert process.stop() == 70
        assert time.monotonic() - began < 1 + AT_ONCE


NO_MORE_THREADS = """
@trigger.on("assistant.requested")
async def block():
    threading.Thread.start = refuse
    print("running", flush=True)
    {block}

def refuse(self):
    raise RuntimeError("can't start new thread")
"""


@pytest.mark.parametrize(("block", "code"), [("", 0), ("threading.Event().wait()", 70)], ids=["idle", "held up"])
def test_a_stop_needs_no_thread_that_is_still_to_be_started(tmp_path: Path, block: str, code: int) -> None:
    with serving(tmp_path, NO_MORE_THREADS.replace("{block}", block), start=True) as process:
        begin(process)
        began = time.monotonic()
        assert process.stop() == code
        assert time.monotonic() - began < 2.6 + AT_ONCE
        assert "Traceback" not in process.output


NO_NEW_THREAD = """
import _thread

def refuse(*_):
    raise RuntimeError("can't create new thread at interpreter shutdown")

_thread.start_new_thread = refuse
"""


@pytest.mark.parametrize("shut", ["", NO_NEW_THREAD], ids=["threads start", "no thread starts"])
def test_under_the_command_line_a_thread_that_outlasts_even_the_loop_ends_with_the_process(
    tmp_path: Path, shut: str
) -> None:
    with serving(tmp_path, shut + ASSISTANT_IN_A_THREAD_OF_ITS_OWN, start=True) as process:
        begin(process)
        assert process.stop() == 0
        assert '"message": "ended while this still ran: long_job at app.py:12"' in process.output


NO_LOG_OF_OURS = (
    NO_NEW_THREAD
    + """
import logging
import sys
import threading

start = threading.Thread.start

def start_others(thread):
    if thread.name == "whereby-trigger-log":
        raise RuntimeError("can't start new thread")
    start(thread)

threading.Thread.start = start_others
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
"""
)


def test_the_last_words_are_said_even_if_they_are_the_first_and_no_thread_starts(tmp_path: Path) -> None:
    with serving(tmp_path, NO_LOG_OF_OURS + ASSISTANT_IN_A_THREAD_OF_ITS_OWN, start=True) as process:
        begin(process)
        assert process.stop() == 0
        assert "whereby-trigger: ended while this still ran: long_job at app.py:12" in process.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_a_program_does_after_it_served_takes_as_long_as_it_takes(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, LISTENER_THAT_ENDS) as process:
        begin(process)
        assert process.stop(number) == 0
        assert process.output.endswith("after\n")
        assert "still ran" not in process.output


LEFT = """
import asyncio
import threading
from whereby_trigger import process
from whereby_trigger.clock import boot_time

process.AT_LEAST = 0.1
over = threading.Event()

def job():
    over.wait(5)

async def serve():
    asyncio.get_running_loop().run_in_executor(None, job)
    {end}

def run():
    process.run(serve(), lambda: {end_by})
    print("after", flush=True)

{how}
"""


IN_A_THREAD = "thread = threading.Thread(target=run); thread.start(); thread.join()"


def left(folder: Path, end: str = "print('served', end='')", end_by: str = "0.0", how: str = "run()") -> Process:
    source = LEFT.replace("{end}", end).replace("{end_by}", end_by).replace("{how}", how)
    return Process([sys.executable, str(write(folder, source))], cwd=folder, apart=True)


def test_what_was_printed_before_is_not_lost(tmp_path: Path) -> None:
    with left(tmp_path) as process:
        assert process.wait() == 0
        assert "served" in process.output
        assert "after" not in process.output


def test_an_error_that_ended_it_is_shown_and_gives_the_exit_code(tmp_path: Path) -> None:
    with left(tmp_path, end="raise OSError('no disk')") as process:
        assert process.wait() == 1
        assert "OSError: no disk\n" in process.output
        assert "ended while this still ran: job at app.py:10\n" in process.output


@pytest.mark.parametrize(
    ("end_by", "how"),
    [("None", "run()"), ("boot_time() + 60", "run()"), ("0.0", IN_A_THREAD)],
    ids=["no bound", "a later one", "the process is another's"],
)
def test_what_may_be_waited_for_is(tmp_path: Path, end_by: str, how: str) -> None:
    with left(tmp_path, "threading.Timer(1, over.set).start()", end_by, how) as process:
        assert process.wait() == 0
        assert process.output == "after\n"
