"""`assistants`: list which rooms have one, start one and stop it, beside the server that runs it."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import write
from tests.support.terminal import run_on_terminal
from tests.support.until import until
from tests.support.whereby import deliver
from whereby_trigger.testing import webhook

ROOM = "acme.whereby.com/visit-1"
URL = f"https://{ROOM}"
OTHER = "https://acme.whereby.com/visit-2"

PEOPLE = """
import sys
from whereby_trigger import Trigger, is_human

trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, stop_grace=1)
"""
COROUTINE = f"""{PEOPLE}
@trigger.assistant
async def scribe(session):
    print("scribe in", session.room_url, "attempt", session.attempt, flush=True)
    print("scribe leaves:", await session.ended, flush=True)
"""
BOUNDS = "leaves an empty room after 60 s and any room after 12 h"
COMMAND = f"""{PEOPLE}
trigger.assistant_command([sys.executable, "-c", "import signal; signal.pause()"])
"""
DEAF = f"""{PEOPLE}
STAY = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
trigger.assistant_command([sys.executable, "-c", STAY], log_output=True)
"""
RAISES = f"""{PEOPLE}
from whereby_trigger.errors import AssistantRefused

@trigger.assistant
async def scribe(session):
    raise AssistantRefused("room_empty", retry=False)
"""
COMPLAINS = f"""{PEOPLE}
COMPLAIN = '''
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
sys.exit("no key for Ada\\033[2J")
'''
trigger.assistant_command([sys.executable, "-c", COMPLAIN], log_output=True)
"""
NO_ASSISTANT = "from whereby_trigger import Trigger\ntrigger = Trigger()\n"


@contextmanager
def serving(folder: Path, source: str, *options: str) -> Iterator[Process]:
    """Serve a program in a folder, until the end of a `with` block."""
    write(folder, source)
    with Process(whereby_trigger("start", "--port", "0", "--secret", "s", *options), cwd=folder) as process:
        process.port()
        yield process


def join(process: Process, id: str, room: str = "/visit-1") -> None:
    found = re.search(r"http://127\.0\.0\.1:([0-9]+)/|http://0\.0\.0\.0:([0-9]+)/", process.output)
    assert found is not None
    port = found[1] or found[2]
    joined = webhook("room.client.joined", id=id, room=room)
    assert deliver(f"http://127.0.0.1:{port}/", joined, "s").status == 200


def listed(call: Call, *options: str) -> list[dict[str, Any]]:
    ended = call("assistants", "list", "--json", *options)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def in_state(call: Call, state: str, room: str = ROOM) -> dict[str, Any]:
    """Wait until a room's last entry is in a state, and return it as the list shows it."""

    def look() -> dict[str, Any] | None:
        found = [fields for fields in listed(call) if fields["room"] == room]
        return found[0] if found and found[0]["state"] == state else None

    shown = until(look)
    assert shown is not None
    return shown


def test_a_room_with_a_coroutine_is_listed_while_it_lives_and_after(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, COROUTINE) as process:
        join(process, "w1")
        process.line(f"scribe in {URL} attempt 1")
        live = in_state(call, "live")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", live["since"])
        assert re.fullmatch(r"[0-9a-f]{32}", live["owner"])
        assert live == {
            "id": 1,
            "room": ROOM,
            "state": "live",
            "owner": live["owner"],
            "pid": None,
            "since": live["since"],
            "attempt": 1,
            "reason": "",
            "webhook": "w1",
        }
        assert call("assistants", "stop", URL).returncode == 0
        process.line("scribe leaves: stopped by whereby-trigger assistants stop")
        ended = in_state(call, "ended")
        assert (ended["owner"], ended["reason"]) == (None, "stopped by whereby-trigger assistants stop")
        shown = call("rooms", "show", URL).stdout
        assert "the assistant is over: stopped by whereby-trigger assistants stop" in shown
        assert len(re.findall(r" replica \w+ starts$", shown, re.M)) == 1, shown


def test_a_room_with_a_command_is_listed_with_its_process_id(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, COMMAND) as process:
        join(process, "w1")
        pid = in_state(call, "live")["pid"]
        os.kill(pid, 0)
        assert call("assistants", "stop", URL).stdout.startswith(f"{ROOM} was live: ")
        assert in_state(call, "ended")["pid"] is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_assistant_started_by_hand_runs_where_the_server_is(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, COROUTINE) as process:
        ended = call("assistants", "start", f"{URL}/?roomKey=x#y")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"{ROOM} waits for an assistant: one starts as soon as")
        process.line(f"scribe in {URL} attempt 1")
        live = in_state(call, "live")
        assert live["webhook"] is None
        again = call("assistants", "start", URL)
        assert (again.returncode, again.stdout) == (
            0,
            f"{ROOM} already has an assistant: live, on replica {live['owner']}\n",
        )


def test_a_start_without_a_server_waits_for_one_and_a_stop_takes_it_back(call: Call, tmp_path: Path) -> None:
    write(tmp_path, COROUTINE)
    assert call("db", "migrate").returncode == 0
    assert "waits for an assistant: " in call("assistants", "start", URL).stdout
    assert call("assistants", "start", URL).stdout == f"{ROOM} already waits for an assistant\n"
    assert call("assistants", "start", OTHER).returncode == 0
    stopped = call("assistants", "stop", URL)
    assert (stopped.returncode, stopped.stdout) == (
        0,
        f"{ROOM} was waiting for an assistant: it no longer waits\n",
    )
    with serving(tmp_path, COROUTINE) as process:
        assert OTHER in process.line("scribe in")
        assert in_state(call, "ended")["attempt"] == 0


def test_a_start_while_one_is_ending_comes_next_and_a_second_stop_takes_it_back(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, DEAF, "--stop-grace", "600", "--drain-timeout", "0") as process:
        join(process, "w1")
        process.line("stdout: deaf")
        in_state(call, "live")
        assert call("assistants", "stop", URL).returncode == 0
        in_state(call, "ending")
        started = call("assistants", "start", URL)
        assert started.stdout == f"{ROOM} has an assistant that is ending: another starts after it\n"
        stopped = call("assistants", "stop", URL)
        assert stopped.stdout == f"{ROOM} was already ending: no other assistant starts after it\n"


@pytest.mark.parametrize("url", [URL, OTHER])
def test_stopping_where_there_is_none_exits_1(call: Call, tmp_path: Path, url: str) -> None:
    assert call("db", "migrate").returncode == 0
    call("assistants", "start", URL)
    call("assistants", "stop", URL)
    ended = call("assistants", "stop", url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "has no assistant and does not wait for one: see `assistants list`" in ended.stderr


@pytest.mark.parametrize("verb", ["start", "stop", "show"])
@pytest.mark.parametrize("url", ["https://evil.example/x", "https://acme.whereby.com", "http://acme.whereby.com/x"])
def test_what_is_no_rooms_url_is_a_wrong_call(call: Call, tmp_path: Path, verb: str, url: str) -> None:
    ended = call("assistants", verb, url)
    assert ended.returncode == 2
    assert "Write it like https://your-subdomain.whereby.com/your-room" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["list"], ["show", URL], ["start", URL], ["stop", URL]])
def test_without_a_store_none_is_created(call: Call, tmp_path: Path, arguments: list[str]) -> None:
    assert call("assistants", *arguments).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_listing_changes_no_file(call: Call, tmp_path: Path) -> None:
    assert call("db", "migrate").returncode == 0
    call("assistants", "start", URL)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert [fields["state"] for fields in listed(call)] == ["waiting"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_an_empty_list_says_so(call: Call) -> None:
    assert call("db", "migrate").returncode == 0
    ended = call("assistants", "list")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "No such room is stored.\n")


def test_the_list_is_narrowed_by_options_but_leaves_out_no_room_that_is_not_over(call: Call) -> None:
    assert call("db", "migrate").returncode == 0
    for name, stops in (("a", False), ("b", True), ("c", True), ("d", False)):
        call("assistants", "start", f"https://acme.whereby.com/{name}")
        if stops:
            call("assistants", "stop", f"https://acme.whereby.com/{name}")

    def rooms(*options: str) -> list[str]:
        return [fields["room"].rpartition("/")[2] for fields in listed(call, *options)]

    assert rooms() == ["d", "c", "b", "a"]
    assert rooms("--state", "ended") == ["c", "b"]
    assert rooms("--limit", "2") == ["d", "c", "a"]


def test_the_store_is_that_of_the_program_or_of_an_option(call: Call, tmp_path: Path) -> None:
    write(tmp_path, "from whereby_trigger import Trigger\nt = Trigger(store='sqlite:///named.db')", "named.py")
    assert call("db", "migrate", "named.py").returncode == 0
    assert call("assistants", "start", URL, "--app", "named.py").returncode == 0
    assert [fields["room"] for fields in listed(call, "named.py")] == [ROOM]
    assert [fields["room"] for fields in listed(call, "--store", "sqlite:///named.db")] == [ROOM]
    assert call("assistants", "stop", URL, "--store", "sqlite:///named.db").returncode == 0


def test_a_list_shows_nothing_an_assistant_said_and_show_shows_all_of_it(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, COMPLAINS) as process:
        join(process, "w1")
        process.line("stdout: ready")
        call("assistants", "stop", URL)
        in_state(call, "ended")
        assert "Ada" not in call("assistants", "list").stdout + call("assistants", "list", "--json").stdout
        shown = call("assistants", "show", URL)
        assert "no key for Ada" in shown.stdout
        assert "\033" not in shown.stdout
        fields = json.loads(call("assistants", "show", URL, "--json").stdout)
        assert (fields["url"], fields["restarts"], fields["id"]) == (URL, 0, 1)
        (run,) = fields["runs"]
        assert (run["outcome"], run["exit_code"], run["output"]) == ("stopped", 1, "no key for Ada\033[2J")
        assert re.search(
            r"^run 1, attempt 1, started .*: stopped: stopped by whereby-trigger assistants stop, exited with 1$",
            shown.stdout,
            re.M,
        )
        assert "\n  | no key for Ada\\x1b[2J\n" in shown.stdout


def test_a_replica_that_is_killed_leaves_a_run_that_says_so(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, COROUTINE) as killed:
        join(killed, "w1")
        owner = in_state(call, "live")["owner"]
        killed.popen.kill()
        assert killed.wait() == -9
    with serving(tmp_path, COROUTINE) as process:
        process.line(f"scribe in {URL} attempt 2")
        in_state(call, "live")
        last, first = json.loads(call("assistants", "show", "visit-1", "--json").stdout)["runs"]
    assert (first["attempt"], first["outcome"], first["reason"]) == (1, "replica died", f"its replica {owner} died")
    assert (first["replica"], first["live_at"] is None, first["ended_at"] is None) == (owner, False, False)
    assert (last["attempt"], last["outcome"], last["ended_at"]) == (2, None, None)


def test_showing_a_room_that_never_asked_exits_1(call: Call) -> None:
    assert call("db", "migrate").returncode == 0
    ended = call("assistants", "show", URL)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "never asked for an assistant" in ended.stderr


def test_an_assistant_that_was_refused_for_good_is_listed_as_failed_and_started_again_by_hand(
    call: Call, tmp_path: Path
) -> None:
    with serving(tmp_path, RAISES) as process:
        join(process, "w1")
        assert in_state(call, "failed")["reason"] == "refused: room_empty"
        assert call("assistants", "start", URL).stdout.startswith(f"{ROOM} waits for an assistant: ")
        until(lambda: [fields["state"] for fields in listed(call)] == ["failed", "failed"])


def test_on_a_terminal_the_owner_is_short(call: Call, tmp_path: Path) -> None:
    with serving(tmp_path, COROUTINE) as process:
        join(process, "w1")
        owner = in_state(call, "live")["owner"]
        shown = run_on_terminal("assistants", "list", cwd=tmp_path, env={"NO_COLOR": "1"})
        row = rf"^1   \d\d-\d\d \d\d:\d\d:\d\d  {ROOM}  live   {owner[:8]}  -    1$"
        assert re.search(row, shown, re.MULTILINE), shown


def test_check_shows_a_coroutine_and_needs_no_listener_beside_it(tmp_path: Path) -> None:
    write(tmp_path, COROUTINE)
    ended = run("check", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert "ok  assistant  scribe, a coroutine: leaves an empty room after 60 s and any room after 12 h" in [
        re.sub(" {3,}", "  ", line) for line in ended.stdout.splitlines()
    ]


@pytest.mark.parametrize(
    ("source", "about", "ok", "says"),
    [
        (COMMAND, "assistant", True, f"{sys.executable} -c import signal; signal.pause(), a command: {BOUNDS}"),
        (COMMAND.replace("sys.executable", "'no-such-program'"), "assistant", False, "there is no program no-such-pr"),
        (NO_ASSISTANT + COROUTINE.partition("stop_grace=1)")[2], "predicate", False, "none: the trigger never fires"),
    ],
)
def test_check_looks_an_assistant_over(
    call: Call, tmp_path: Path, source: str, about: str, ok: bool, says: str
) -> None:
    write(tmp_path, source)
    ended = call("check", "--json", "--port", "0")
    found = {row["check"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert (ended.returncode, found[about]["ok"]) == (0 if ok else 1, ok)
    assert says in found[about]["detail"]


def test_a_server_whose_assistant_is_all_that_listens_warns_of_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, COROUTINE) as process:
        assert process.stop() == 0
        assert "nothing listens" not in process.output
