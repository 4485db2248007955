"""`dev`: the program is served while it is being written; a save restarts it, and nothing pending is lost."""

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.process import Process, whereby_trigger
from tests.support.programs import HUMANS_JOIN, free_port, write
from tests.support.terminal import Terminal
from tests.support.until import until
from tests.support.whereby import deliver, request
from whereby_trigger.testing import webhook

TELLS_ITS_ID = f"import os\nprint('pid', os.getpid(), flush=True)\n{HUMANS_JOIN}"
NOBODY_JOINS = HUMANS_JOIN.replace("return is_human(webhook)", "return False")
NEVER_ANSWERS = "import asyncio\n" + HUMANS_JOIN.replace("def people", "async def people").replace(
    "return is_human(webhook)", "print('asked', flush=True); await asyncio.Event().wait()"
)
DIES_WHEN_ASKED = "import os\n" + HUMANS_JOIN.replace("return is_human(webhook)", "os._exit(7)")


def dev(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Process:
    return Process(whereby_trigger("dev", "--port", "0", *options), cwd=folder, env=env)


def url_of(process: Process) -> str:
    return f"http://127.0.0.1:{process.port()}/"


def decision(process: Process, id: str) -> str:
    return str(json.loads(process.line(id))["decision"])


def child_of(process: Process) -> int:
    return int(process.line("pid ").split()[-1])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_save_replaces_the_program_that_answers(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    before, after = webhook("room.client.joined"), webhook("room.client.joined")
    with dev(tmp_path) as process:
        deliver(url_of(process), before, secret=None)
        assert decision(process, before.id) == "fired"
        write(tmp_path, NOBODY_JOINS)
        process.line("app.py changed: restarting")
        deliver(url_of(process), after, secret=None)
        assert decision(process, after.id) == "skipped"


def test_a_module_beside_the_program_is_watched_too_and_other_files_are_not(tmp_path: Path) -> None:
    write(tmp_path, "def wanted(webhook): return True", "rules/wishes.py")
    write(tmp_path, f"from rules.wishes import wanted\n{HUMANS_JOIN.replace('is_human(webhook)', 'wanted(webhook)')}")
    with dev(tmp_path) as process:
        process.port()
        write(tmp_path, "nothing to import", "notes.txt")
        write(tmp_path, "def wanted(webhook): return False", "rules/wishes.py")
        assert json.loads(process.line("changed"))["message"] == "rules/wishes.py changed: restarting"
        joined = webhook("room.client.joined")
        deliver(url_of(process), joined, secret=None)
        assert decision(process, joined.id) == "skipped"


def test_a_webhook_that_is_pending_at_a_restart_is_decided_after_it(tmp_path: Path) -> None:
    write(tmp_path, NEVER_ANSWERS)
    joined = webhook("room.client.joined")
    with dev(tmp_path, "--predicate-timeout", "600") as process:
        assert deliver(url_of(process), joined, secret=None).status == 200
        process.line("asked")
        write(tmp_path, HUMANS_JOIN)
        process.line("app.py changed: restarting")
        process.line("joining https://acme.whereby.com/visit-1 attempt 2")
        assert decision(process, joined.id) == "fired"


def test_a_program_that_does_not_import_waits_for_the_save_that_mends_it(tmp_path: Path) -> None:
    write(tmp_path, "x = = 2\n")
    with dev(tmp_path) as process:
        process.line("Error: app.py cannot be imported: SyntaxError")
        process.line("app.py, line 1: x = = 2")
        process.line(f"waiting for a change in {tmp_path}")
        write(tmp_path, HUMANS_JOIN)
        assert deliver(url_of(process), webhook("room.client.joined"), secret=None).status == 200
        write(tmp_path, "y = = 2\n")
        process.line("app.py, line 1: y = = 2")
        process.line("waiting for a change")
        assert process.popen.poll() is None


def test_a_program_that_dies_waits_for_a_save_and_then_decides_what_it_died_of(tmp_path: Path) -> None:
    write(tmp_path, DIES_WHEN_ASKED)
    joined = webhook("room.client.joined")
    with dev(tmp_path) as process:
        deliver(url_of(process), joined, secret=None)
        process.line("the program ended with exit code 7: waiting for a change")
        write(tmp_path, HUMANS_JOIN)
        process.line("joining https://acme.whereby.com/visit-1 attempt 2")
        assert decision(process, joined.id) == "fired"


def test_ctrl_c_reaches_the_whole_terminal_and_ends_both_processes_once(tmp_path: Path) -> None:
    write(tmp_path, TELLS_ITS_ID)
    with dev(tmp_path) as process:
        child = child_of(process)
        process.port()
        os.killpg(process.popen.pid, signal.SIGINT)
        assert process.wait() == 0
        assert is_gone(child)
    assert "Traceback" not in process.output
    assert [json.loads(line)["message"] for line in process.output.splitlines()[-2:]] == [
        "SIGTERM: stopping",
        "stopped",
    ]


def test_a_sigterm_ends_both_processes(tmp_path: Path) -> None:
    write(tmp_path, TELLS_ITS_ID)
    with dev(tmp_path) as process:
        child = child_of(process)
        process.port()
        assert process.stop(signal.SIGTERM) == 0
        assert is_gone(child)
    assert json.loads(process.output.splitlines()[-1])["message"] == "stopped"


def test_a_kill_of_the_watcher_ends_the_program_too(tmp_path: Path) -> None:
    write(tmp_path, TELLS_ITS_ID)
    with dev(tmp_path) as process:
        process.port()
        process.kill()
        until(lambda: process.closed)


def test_a_program_that_refuses_to_end_is_killed_at_the_restart(tmp_path: Path) -> None:
    stubborn = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    write(tmp_path, f"{stubborn}{TELLS_ITS_ID}")
    with dev(tmp_path) as process:
        child = child_of(process)
        process.port()
        write(tmp_path, HUMANS_JOIN)
        process.port()
        assert is_gone(child)


def test_only_this_machine_is_served_even_with_a_secret_or_where_port_is_set(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with dev(tmp_path, "--no-reload", "--secret", "s") as process:
        assert "http://127.0.0.1:" in process.line("predicates for")
    with dev(tmp_path, "--no-reload", env={"PORT": "3000"}) as process:
        assert "http://127.0.0.1:" in process.line("predicates for")


def test_a_host_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with dev(tmp_path, "--no-reload", "--secret", "s", env={"WHEREBY_TRIGGER_HOST": "0.0.0.0"}) as process:
        assert "http://0.0.0.0:" in process.line("predicates for")


@pytest.mark.parametrize(
    ("keywords", "environment", "options"),
    [
        ("port=0, drain_timeout=30", {"WHEREBY_TRIGGER_MAX_AGE": "600"}, ()),
        ("port=0, max_age=10_000", {"WHEREBY_TRIGGER_DRAIN_TIMEOUT": "9000"}, ()),
        ("port=0", {"PORT": "abc"}, ()),
        ("", {"PORT": "abc"}, ("--port", "0")),
        ("port=0", {}, ("--max-age", "20")),
    ],
)
@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_what_can_be_served_is_whatever_one_source_says_that_another_overrides(
    tmp_path: Path, keywords: str, environment: dict[str, str], options: tuple[str, ...], reload: str
) -> None:
    write(tmp_path, HUMANS_JOIN.replace("Trigger()", f"Trigger({keywords})"))
    with Process(whereby_trigger("dev", reload, *options), cwd=tmp_path, env=environment) as process:
        assert process.port()


def test_options_reach_the_program_that_serves(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN, "my program.py")
    port = free_port()
    options = ("--port", str(port), "--path", "/a", "--secret", "s1", "--secret", "s2", "my program.py")
    with Process(whereby_trigger("dev", *options), cwd=tmp_path) as process:
        assert f"http://127.0.0.1:{port}/a" in process.line("signed deliveries")
        assert deliver(f"http://127.0.0.1:{port}/a", webhook("room.client.left"), "s2").status == 200


def test_without_watchfiles_it_serves_and_says_what_to_install(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    write(tmp_path, "raise ImportError", "missing/watchfiles.py")
    with dev(tmp_path, env={"PYTHONPATH": str(tmp_path / "missing")}) as process:
        process.line("`pip install 'whereby-trigger[dev]'` installs it")
        assert deliver(url_of(process), webhook("room.client.joined"), secret=None).status == 200
        assert process.stop() == 0


def test_without_reload_there_is_one_process(tmp_path: Path) -> None:
    write(tmp_path, TELLS_ITS_ID)
    with dev(tmp_path, "--no-reload") as process:
        assert child_of(process) == process.popen.pid
        process.port()
        assert process.stop(signal.SIGINT) == 0


def test_on_a_terminal_the_code_of_a_handler_that_is_missing_can_be_pasted(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with Terminal(whereby_trigger("dev", "--port", "0"), cwd=tmp_path) as terminal:
        url = terminal.until(r"http://127\.0\.0\.1:[0-9]+/")[0]
        assert deliver(url, webhook("room.client.knocked")).status == 200
        terminal.until(r"yet; to hear of it, paste\n\nfrom whereby_trigger import RoomClientKnocked\n")
        terminal.until(r'\n@trigger\.on\("room\.client\.knocked"\)\nasync def room_client_knocked\(')


def test_an_inspector_whose_port_another_program_took_meanwhile_gets_another_and_says_which(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        child = whereby_trigger("dev", "--as-child", f"--inspector-port={taken}", "--port", "0", "--", "app.py")
        # The child of `dev` ends when its stdin does.
        serving = f"import subprocess; subprocess.Popen({child!r}, stdin=subprocess.PIPE).wait()"
        with Process([sys.executable, "-c", serving], cwd=tmp_path) as process:
            process.port()
            url = process.line("inspector at").partition("inspector at ")[2].split('"')[0].strip()
            assert urlsplit(url).port not in (taken, None)
            assert request("GET", url).status == 200
