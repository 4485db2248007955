"""Ctrl-C prints what it waits for and for how long, counts down, keeps to it, and a second one ends it immediately."""

import json
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.process import Process
from tests.support.programs import write
from tests.support.terminal import Terminal
from tests.support.until import AT_ONCE
from tests.support.whereby import SECRET, deliver
from whereby_trigger import lifecycle
from whereby_trigger.testing import webhook

CTRL_C = "\x03"

PROGRAM = """
import asyncio
import threading
from whereby_trigger import Trigger, lifecycle, process, replica

replica.DRAIN_MARGIN, lifecycle.SAY_EVERY = 1.0, 0.1
trigger = Trigger(host="127.0.0.1", port=0, stop_grace=20)
trigger.when("assistant.requested")(lambda: True)

@trigger.assistant
async def stay(session):
    print("in the room", flush=True)
    await session.ended
    print("hears the end", flush=True)
    await asyncio.Event().wait()

@trigger.when("room.client.joined")
async def block(webhook):
    print("blocks", flush=True)
    threading.Event().wait()

{more}

if __name__ == "__main__":
    trigger.start()
"""
ENVIRONMENT = {"WHEREBY_WEBHOOK_SECRET": SECRET}


def on_terminal(folder: Path, more: str = "", columns: int = 200) -> Terminal:
    app = write(folder, PROGRAM.replace("{more}", more))
    return Terminal([sys.executable, app.name], cwd=folder, env=ENVIRONMENT | {"COLUMNS": str(columns)})


def url_of(terminal: Terminal) -> str:
    return terminal.until(r"http://127\.0\.0\.1:[0-9]+/")[0]


def screen(shown: str) -> list[str]:
    """Return the lines that a terminal shows in the end: without what was cleared."""
    lines = [line.split("\x1b[K")[-1].rstrip("\r") for line in shown.split("\n")]
    return [re.sub(r"\x1b\[[0-9]*m", "", line) for line in lines]


def test_ctrl_c_counts_down_in_one_line_and_a_second_one_ends_it_now(tmp_path: Path) -> None:
    with on_terminal(tmp_path) as terminal:
        url = url_of(terminal)
        assert deliver(url, webhook("assistant.requested", room="/visit-1")).status == 200
        terminal.until("in the room")
        terminal.press(CTRL_C)
        said = "draining for at most 26 s: 1 assistant is in its room; press Ctrl-C again to end now"
        terminal.until(f"SIGINT: {said}")
        terminal.until("draining: at most 25 s left, 1 assistant is in its room; press Ctrl-C again to end now")
        terminal.until("draining: at most 24 s left")
        began = time.monotonic()
        terminal.press(CTRL_C)
        assert terminal.ended() == 0
        assert time.monotonic() - began < AT_ONCE
        shown = screen(terminal.shown)
        assert "ending now" in terminal.shown
        assert [line for line in shown if "s left" in line] == []
        assert shown[-2].endswith("stopped")


def test_a_countdown_is_no_wider_than_the_terminal(tmp_path: Path) -> None:
    with on_terminal(tmp_path, columns=60) as terminal:
        url = url_of(terminal)
        assert deliver(url, webhook("assistant.requested", room="/visit-1")).status == 200
        terminal.until("in the room")
        terminal.press(CTRL_C)
        line = terminal.until(r"\x1b?(draining: at most [0-9]+ s left[^\r\n]{0,60})\r")[1]
        assert len(line) == 59


def test_where_code_blocks_the_loop_ctrl_c_says_so_and_the_time_is_kept(tmp_path: Path) -> None:
    with on_terminal(tmp_path, "trigger.override({'stop_grace': 0.5, 'drain_timeout': 0})") as terminal:
        url = url_of(terminal)
        assert deliver(url, webhook("room.client.joined", room="/visit-1")).status == 200
        terminal.until("\nblocks")
        began = time.monotonic()
        terminal.press(CTRL_C)
        left = terminal.until(rf"draining: at most ([0-9]+) s left, {lifecycle.BLOCKED}; press Ctrl-C again to end now")
        assert terminal.ended() == 70
        assert time.monotonic() - began < 1 + int(left[1])


HANGING_STORE = """
from whereby_trigger.store.sqlite import SqliteStore

async def hang(store):
    await asyncio.Event().wait()

SqliteStore.close, replica.CLOSE_MARGIN = hang, 3.0
trigger.override({'stop_grace': 0, 'drain_timeout': 0})
"""


def test_where_the_store_hangs_the_time_said_is_kept(tmp_path: Path) -> None:
    app = write(tmp_path, PROGRAM.replace("{more}", HANGING_STORE))
    with Process([sys.executable, app.name], cwd=tmp_path, env=ENVIRONMENT) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        assert deliver(url, webhook("assistant.requested", room="/visit-1")).status == 200
        process.line("in the room")
        began = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        said = re.search(r"draining for at most ([0-9.]+) s", process.line("draining for"))
        assert said is not None
        assert process.wait() == 70
        assert time.monotonic() - began < float(said[1])


def test_off_a_terminal_a_line_now_and_then_says_how_long_it_still_takes(tmp_path: Path) -> None:
    app = write(tmp_path, PROGRAM.replace("{more}", ""))
    with Process([sys.executable, app.name], cwd=tmp_path, env=ENVIRONMENT) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        assert deliver(url, webhook("assistant.requested", room="/visit-1")).status == 200
        process.line("in the room")
        process.popen.send_signal(signal.SIGINT)
        line = json.loads(process.line("s left"))
        assert re.fullmatch(r"draining: at most [0-9]+ s left, 1 assistant is in its room; .*", line["message"])
        process.line("s left")
        assert process.stop(signal.SIGINT) == 0


def test_the_lines_of_a_drain_of_an_hour_are_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from whereby_trigger import Trigger

    life = Trigger()._lifecycle
    elapsed, lines = 1.0, 0
    while elapsed < 3600:
        lines += 1
        elapsed += life._say_left(elapsed, 3600 - elapsed)
    assert lines < 25
