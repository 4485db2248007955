"""`start`: one line at the start, one for each delivery, and a clean end."""

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.process import COMMAND, Process, clean_environment, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.stored import stored
from tests.support.terminal import run_on_terminal
from tests.support.whereby import SECRET, deliver, post, request
from whereby_trigger.testing import webhook

SECRETS = {"WHEREBY_WEBHOOK_SECRET": SECRET}
STOPS_WHEN_FIRED = f"{HUMANS_JOIN}    trigger.stop()\n"
LISTENS_FOR_EVER = f"import asyncio\n{HUMANS_JOIN}    await asyncio.Event().wait()\n"


def start(folder: Path, *options: str) -> Process:
    return Process(whereby_trigger("start", "--port", "0", "--host", "127.0.0.1", *options), cwd=folder, env=SECRETS)


def test_the_start_line_says_where_what_for_and_whether_signed(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with start(tmp_path, "--path", "/hooks") as process:
        line = json.loads(process.line("predicates for"))
        assert re.fullmatch(
            rf"http://127\.0\.0\.1:[0-9]+/hooks, store {tmp_path}/whereby-trigger\.db, "
            "predicates for room\\.client\\.joined, signed deliveries",
            line["message"],
        )
        assert line["level"] == "info"


def test_a_delivery_is_one_json_line_where_nobody_watches(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    joined = webhook("room.client.joined")
    with start(tmp_path) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        assert deliver(url, joined).status == 200
        line = json.loads(process.line(joined.id))
        assert line.pop("time").endswith("+00:00")
        assert 0 < line.pop("ms") < 5000
        assert re.fullmatch(r"[0-9a-f]{32}", line.pop("replica"))
        assert line == {
            "level": "info",
            "logger": "whereby_trigger.deliveries",
            "type": "room.client.joined",
            "room": "acme.whereby.com/visit-1",
            "webhook_id": joined.id,
            "session_id": joined.data.room_session_id,
            "answer": 200,
            "decision": "fired",
            "reason": "predicate people returned True",
        }
        assert deliver(url, joined).status == 200
        assert json.loads(process.line(joined.id))["reason"] == "a duplicate: stored already"
        assert deliver(url, joined, "another secret").status == 401
        assert json.loads(process.line("401"))["reason"] == "wrong signature"


def test_every_line_is_json_whatever_is_sent(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with start(tmp_path) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        assert deliver(url, webhook("room.client.left")).status == 200
        assert deliver(url, b'{"id": "x\\u0000"}').status == 200
        assert deliver(url, b'{"id": "1", "type": "line\\nbreak", "data": {}}').status == 200
        assert post(url, b"{}", {}).status == 401
        assert request("BREW", url).status == 400
        assert request("GET", url, headers={"connection": "upgrade", "upgrade": "websocket"}).status == 200
        assert process.stop() == 0
    lines = [json.loads(line) for line in process.output.splitlines()]
    assert {line["level"] for line in lines} == {"info", "warning"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    write(tmp_path, HUMANS_JOIN)
    with start(tmp_path) as process:
        process.port()
        assert process.stop(number) == 0
    assert json.loads(process.output.splitlines()[-1])["message"] == "stopped"


def test_a_program_that_starts_itself_when_imported_is_served_by_the_command_line(tmp_path: Path) -> None:
    write(tmp_path, f"{HUMANS_JOIN}\ntrigger.start()\nprint('after start', flush=True)\n")
    with start(tmp_path) as process:
        process.line("after start")
        url = f"http://127.0.0.1:{process.port()}/"
        assert deliver(url, webhook("room.client.joined")).status == 200
        process.line("joining https://acme.whereby.com/visit-1 attempt 1")


def test_a_program_to_which_nobody_listens_is_warned_about(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN.partition("@trigger.on")[0])
    with start(tmp_path) as process:
        assert json.loads(process.line("no listener and no assistant"))["level"] == "warning"
        process.port()


def test_where_port_is_set_a_secret_or_an_explicit_permission_is_needed(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    refused = run("start", cwd=tmp_path, env={"PORT": "0"})
    assert refused.returncode == 2
    assert "set WHEREBY_WEBHOOK_SECRET to the webhook's secret from Whereby's dashboard" in refused.stderr
    program = whereby_trigger("start", "--allow-unsigned", "--port", "0")
    with Process(program, cwd=tmp_path, env={"PORT": "0"}) as process:
        assert "http://0.0.0.0:" in process.line("UNSIGNED deliveries")


def test_a_port_that_differs_from_PORT_is_warned_about(tmp_path: Path) -> None:  # noqa: N802
    write(tmp_path, HUMANS_JOIN)
    with Process(whereby_trigger("start", "--port", "0"), cwd=tmp_path, env=SECRETS | {"PORT": "3000"}) as process:
        process.line("PORT is 3000 in the environment, but the command line says 0: using that")


def test_on_a_terminal_lines_are_for_people(tmp_path: Path) -> None:
    write(tmp_path, STOPS_WHEN_FIRED)
    url = f"sqlite:///{tmp_path}/whereby-trigger.db"
    with start(tmp_path) as process:
        deliver(f"http://127.0.0.1:{process.port()}/", webhook("room.client.joined"))
        assert process.wait() == 0
    assert run("events", "replay", "--yes", "--state", "fired", cwd=tmp_path).returncode == 0
    shown = run_on_terminal("start", "--port", "0", cwd=tmp_path, env={"NO_COLOR": "1"})
    assert stored(url)[0].state == "fired"
    line = next(line for line in shown.splitlines() if "fired" in line)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d room\.client\.joined +acme\.whereby\.com/visit-1 +200 fired +"
        r"predicate people returned True +[\d.]+ ms UNSIGNED",
        line,
    )


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    write(tmp_path, LISTENS_FOR_EVER)
    with start(tmp_path) as process:
        deliver(f"http://127.0.0.1:{process.port()}/", webhook("room.client.joined"))
        process.line("joining")
        process.popen.send_signal(signal.SIGTERM)
        process.line("draining for at most 3610 s")
        assert process.stop() == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_start_without_files_to_be_had_is_one_that_may_be_tried_again(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    environment = clean_environment(SECRETS)
    ends = []
    for files in (14, 16, 18):
        begin = f"ulimit -n {files}; exec {shlex.quote(COMMAND)} start --port 0"
        ends.append(
            subprocess.run(
                ["sh", "-c", begin], cwd=tmp_path, env=environment, capture_output=True, timeout=20, check=False
            )
        )
    # Exit code 2 means that a retry does not help: the systemd unit does not restart after it.
    assert [end.returncode for end in ends if end.returncode in (0, 2)] == []
    assert any(b"out of files (see RLIMIT_NOFILE)" in end.stderr for end in ends)
