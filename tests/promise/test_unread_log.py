"""A log that nobody reads blocks nothing: no delivery, no assistant, no end."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.process import COMMAND, Process, clean_environment, whereby_trigger
from tests.support.programs import free_port, write
from tests.support.stored import stored
from tests.support.unread import KINDS, Unread
from tests.support.until import AT_ONCE, until
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger.testing import webhook

PROGRAM = """
import asyncio
import gc
import logging
import sys
import warnings
from whereby_trigger import Trigger, process, replica, stderr

replica.DRAIN_MARGIN, process.AT_LEAST, stderr.MOST_LINES = 1.0, 1.0, 20
trigger = Trigger(host="127.0.0.1", port=0, drain_timeout=0, stop_grace=0.1, lease_ttl=3)
trigger.when("assistant.requested")(lambda: True)
trigger.when("room.client.left")(lambda: False)

{more}

if __name__ == "__main__":
    trigger.start()
    print("after", flush=True)
"""

NOTHING_MORE = ""

ANY_READER = (*KINDS, "slow")
"""Slow: it reads a line a second."""

LOUD = """
async def fail():
    raise ValueError("a" * 500)

async def never_awaited():
    pass

class Unraisable:
    def __del__(self):
        raise ValueError("b" * 500)

@trigger.when("room.client.joined")
async def loud(webhook):
    for number in range(50):
        logging.getLogger("mine").warning("c" * 500)
        warnings.warn(f"{number}" + "d" * 500)
        never_awaited()
        Unraisable()
        asyncio.get_running_loop().call_exception_handler({"message": "e" * 500})
        print("f" * 500, file=sys.stderr)
    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])
    del task
    gc.collect()
    print("asked", flush=True)
    return False
"""

PRINTING = """
script = "import sys; [print('x' * 200, file=s) for n in range(2000) for s in (sys.stdout, sys.stderr)]"
trigger.assistant_command([sys.executable, "-c", script + "; open('left', 'w')"], log_output=True)
"""

BLOCKING = """
import threading

@trigger.when("room.client.joined")
async def block(webhook):
    print("blocks", flush=True)
    threading.Event().wait()
"""

STAYING = """
@trigger.on("assistant.requested")
async def stay():
    print("stays", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""


def serving(folder: Path, kind: str, more: str = NOTHING_MORE, *, start: bool = False) -> Unread:
    app = write(folder, PROGRAM.replace("{more}", more))
    program = whereby_trigger("start", app.name) if start else [sys.executable, app.name]
    env = {"WHEREBY_WEBHOOK_SECRET": SECRET, "WHEREBY_TRIGGER_STORE": f"sqlite:///{folder}/store.db"}
    return Unread(kind, program, cwd=folder, env=env)


@pytest.mark.parametrize("kind", ANY_READER)
def test_whether_the_log_is_read_or_not_deliveries_are_answered_and_it_ends_when_told(
    tmp_path: Path, kind: str
) -> None:
    with serving(tmp_path, kind) as process:
        process.fill()
        for number in range(60):
            left = webhook("room.client.left", room=f"/{number}")
            assert deliver(process.url, left).status == 200
        assert request("GET", f"{process.url}livez").status == 200
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 2 + AT_ONCE
        assert process.output.read_text() == "after\n"
    assert len(stored(f"sqlite:///{tmp_path}/store.db")) == 60


def test_the_lines_that_were_dropped_are_counted_where_they_are_missing(tmp_path: Path) -> None:
    with serving(tmp_path, "pipe") as process:
        for number in range(60):
            assert deliver(process.url, webhook("room.client.left", room=f"/{number}")).status == 200
        process.popen.send_signal(signal.SIGTERM)
        log = process.read_on()
        assert process.popen.wait() == 0
    decided = log.count('"room.client.left"')
    dropped = [int(number) for number in re.findall(r"([0-9]+) log lines? w[a-z]+ dropped: the reader of", log)]
    others = log.count('"logger": "whereby_trigger"') - len(dropped)
    assert 0 < decided < 60
    # Besides the deliveries: a start, whose line was read before, SIGTERM, and "stopped".
    assert decided + sum(dropped) + others == 60 + 2


@pytest.mark.parametrize("start", [False, True], ids=["program", "command line"])
def test_nothing_that_python_writes_to_standard_error_waits_for_its_reader(tmp_path: Path, start: bool) -> None:
    with serving(tmp_path, "pipe", LOUD, start=start) as process:
        process.fill()
        assert deliver(process.url, webhook("room.client.joined", room="/visit-1")).status == 200
        until(lambda: "asked" in process.output.read_text(), AT_ONCE)
        assert process.stop(within=2 + AT_ONCE) == 0


EVERY_WAY = """
import sys
import threading

class Unraisable:
    def __del__(self):
        raise ValueError("several\\nlines")

def fail():
    raise ValueError("several\\nlines")

@trigger.when("room.client.joined")
async def loud(webhook):
    logging.getLogger("mine").warning("several\\nlines")
    logging.getLogger("mine").error("said", exc_info=ValueError("several\\nlines"))
    warnings.warn("several\\nlines")
    Unraisable()
    for target in (fail, sys.exit):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    asyncio.get_running_loop().call_exception_handler({"message": "m", "exception": ValueError("several\\nlines")})
    return False
"""


def test_under_start_what_python_itself_writes_is_one_json_object_a_line(tmp_path: Path) -> None:
    with serving(tmp_path, "pipe", EVERY_WAY + STAYING, start=True) as process:
        for type in ("room.client.joined", "room.client.knocked", "assistant.requested"):
            assert deliver(process.url, webhook(type, room=f"/{type}")).status == 200
        until(lambda: "stays" in process.output.read_text())
        process.popen.send_signal(signal.SIGTERM)
        log = [json.loads(line) for line in process.read_on().splitlines()]
        assert process.popen.wait() == 0
    several = [line["logger"] for line in log if "several" in str(line)]
    assert sorted(several) == ["asyncio", "mine", "mine", "py.warnings", "python", "python"]
    assert not [line for line in log if "SystemExit" in str(line)]
    (hint,) = (line["message"] for line in log if "nothing handles" in line.get("message", ""))
    add = '@trigger.on("room.client.knocked")'
    assert hint == f"nothing handles room.client.knocked yet; to hear of it, add {add} to a function"
    assert "ended while this still ran: stay at app.py" in log[-1]["message"]


def test_an_assistant_that_prints_is_not_held_up_by_a_log_that_nobody_reads(tmp_path: Path) -> None:
    with serving(tmp_path, "pipe", PRINTING) as process:
        process.fill()
        assert deliver(process.url, webhook("assistant.requested", room="/visit-1")).status == 200
        until(lambda: (tmp_path / "left").exists())


@pytest.mark.parametrize("kind", ANY_READER)
def test_the_watchdog_ends_the_process_whether_its_words_are_read_or_not(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path, kind, BLOCKING) as process:
        process.fill()
        assert deliver(process.url, webhook("room.client.joined", room="/visit-1")).status == 200
        until(lambda: "blocks" in process.output.read_text())
        assert process.stop() == 70


@pytest.mark.parametrize("start", [False, True], ids=["program", "command line"])
def test_the_last_resort_ends_the_process_whether_its_words_are_read_or_not(tmp_path: Path, start: bool) -> None:
    with serving(tmp_path, "pipe", STAYING, start=start) as process:
        process.fill()
        assert deliver(process.url, webhook("assistant.requested", room="/visit-1")).status == 200
        until(lambda: "stays" in process.output.read_text())
        assert process.stop() == 0
        assert "after" not in process.output.read_text()


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_it_starts_where_standard_streams_are_closed_and_no_socket_takes_their_place(
    tmp_path: Path, closed: str
) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("/proc is missing: what a descriptor leads to cannot be seen")
    port = free_port()
    write(tmp_path, "from whereby_trigger import Trigger\ntrigger = Trigger()\n")
    serve = f'exec "{COMMAND}" start app.py --host 127.0.0.1 --port {port} --secret "{SECRET}" {closed}'
    process = subprocess.Popen(["sh", "-c", serve], cwd=tmp_path, env=clean_environment())
    try:
        until(lambda: answers(port))
        url = f"http://127.0.0.1:{port}/"
        assert deliver(url, webhook("room.client.joined", room="/visit-1")).status == 200
        nowhere = [file.readlink() for file in Path(f"/proc/{process.pid}/fd").iterdir() if int(file.name) <= 2]
        assert nowhere.count(Path("/dev/null")) >= closed.count("&-")
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


OPENING = """
from whereby_trigger import Trigger

notebook = open("notebook", "w")
if __name__ == "__main__":
    Trigger(host="127.0.0.1", port={port}, secret="s").start()
"""


def test_a_file_that_a_program_opened_where_standard_error_was_closed_gets_no_log(tmp_path: Path) -> None:
    port = free_port()
    app = write(tmp_path, OPENING.format(port=port))
    serve = f'exec "{sys.executable}" -W ignore {app.name} 2>&-'
    process = subprocess.Popen(["sh", "-c", serve], cwd=tmp_path, env=clean_environment())
    try:
        until(lambda: answers(port))
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "notebook").read_text() == ""


def answers(port: int) -> bool:
    try:
        return request("GET", f"http://127.0.0.1:{port}/livez").status == 200
    except OSError:
        return False


FORKING = """
import os

@trigger.when("room.client.joined")
def fork(webhook):
    logging.getLogger("whereby_trigger.assistant").info("before")
    if os.fork() == 0:
        logging.getLogger("whereby_trigger.assistant").info("in the child")
        os._exit(0)
    os.wait()
    print("forked", flush=True)
    return False
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_a_forked_child_logs_is_written_and_nothing_of_its_parent_is_written_twice(tmp_path: Path) -> None:
    app = write(tmp_path, PROGRAM.replace("{more}", FORKING))
    program = [sys.executable, "-W", "ignore", app.name]
    with Process(program, cwd=tmp_path, env={"WHEREBY_WEBHOOK_SECRET": SECRET}, apart=True) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        for number in range(5):
            assert deliver(url, webhook("room.client.joined", room=f"/{number}")).status == 200
            process.line("forked")
        assert process.stop() == 0
        assert process.output.count('"in the child"') == 5
        assert process.output.count('"before"') == 5
