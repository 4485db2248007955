"""`check`: whether a program could be started, reported line by line before it is."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.process import run
from tests.support.programs import HUMANS_JOIN, write
from tests.support.stored import stored


def findings(call: Call, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Return the exit code, and the last verdict of each check with its detail."""
    ended = call("check", "--json", *arguments, env=env)
    rows = map(json.loads, ended.stdout.splitlines())
    return ended.returncode, {row["check"]: (row["ok"], row["detail"]) for row in rows}


def test_a_program_in_order_exits_0_with_a_line_for_each_thing(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = run("check", "--port", "0", "--secret", "hush", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [line.split(maxsplit=2) for line in ended.stdout.splitlines()] == [
        ["ok", "app", "app.py imports"],
        ["ok", "predicate", "people for room.client.joined"],
        ["ok", "listeners", "1 for trigger_event_success"],
        ["ok", "secret", "1 set"],
        ["ok", "store", f"{tmp_path}/whereby-trigger.db does not exist yet and can be created"],
        ["ok", "port", "any free port on 0.0.0.0"],
    ]


def test_checking_leaves_no_file_behind(call: Call, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    assert findings(call, "--port", "0")[0] == 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["app.py"]


def test_a_store_that_is_there_is_written_to_and_left_as_it_was(call: Call, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    assert call("db", "migrate").returncode == 0
    code, found = findings(call, "--port", "0")
    assert (code, found["store"]) == (0, (True, f"{tmp_path}/whereby-trigger.db opens and takes writes"))
    assert stored(f"sqlite:///{tmp_path}/whereby-trigger.db") == []


def test_a_body_retention_that_does_nothing_is_a_warning(call: Call, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    code, found = findings(call, "--port", "0", "--retention", "1d", "--body-retention", "7d")
    detail = "604800 s has no effect: the webhooks go after the retention, 86400 s"
    assert (code, found["body_retention"]) == (0, (True, detail))
    assert "body_retention" not in findings(call, "--port", "0", "--body-retention", "1d")[1]


def test_without_a_secret_it_says_who_is_served(call: Call, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    assert findings(call, "--port", "0")[1]["secret"] == (
        True,
        "none set: only this machine is served, and no signature is checked",
    )
    assert findings(call, "--port", "0", "--allow-unsigned")[1]["secret"][1].startswith(
        "none set: any address is served"
    )


PREDICATE_ONLY = HUMANS_JOIN.partition("@trigger.on")[0]
LISTENER_ONLY = HUMANS_JOIN.replace('@trigger.when("room.client.joined")', "")
NOTHING = "from whereby_trigger import Trigger\ntrigger = Trigger()\n"


@pytest.mark.parametrize(
    ("source", "arguments", "env", "about", "says"),
    [
        ("import nowhere", [], {}, "app", "app.py cannot be imported: ModuleNotFoundError"),
        (PREDICATE_ONLY, [], {}, "listeners", "nothing happens when the trigger fires"),
        (LISTENER_ONLY, [], {}, "predicate", "none: the trigger never fires"),
        (NOTHING, [], {}, "listeners", "none, and no predicate"),
        (HUMANS_JOIN, ["--port", "{busy}"], {}, "port", "is in use on 127.0.0.1"),
        (HUMANS_JOIN, ["--metrics", "127.0.0.1:{busy}"], {}, "metrics", "a port of its own with --metrics"),
        (HUMANS_JOIN, ["--inspector", "127.0.0.1:{busy}"], {}, "inspector", "a port of its own with --inspector"),
        (HUMANS_JOIN, ["--inspector", "0.0.0.0:0"], {}, "inspector", "to other machines, but it has no token"),
        (HUMANS_JOIN, ["--host", "203.0.113.7", "--secret", "s"], {}, "port", "is not an address of this machine"),
        (HUMANS_JOIN, ["--host", "0.0.0.0"], {}, "secret", "would serve other machines"),
        (HUMANS_JOIN, [], {"PORT": "3000"}, "secret", "PORT is set, so outside traffic is expected here"),
        (HUMANS_JOIN, ["--store", "sqlite:///no/folder/a.db"], {}, "store", "does not exist: create it"),
        (HUMANS_JOIN, ["--store", "sqlite:///app.py"], {}, "store", "is damaged or is no SQLite file"),
        (HUMANS_JOIN, ["--store", "mysql://x"], {}, "store", "is of no known kind"),
    ],
)
def test_a_problem_exits_1_and_says_what_to_do(
    call: Call, tmp_path: Path, source: str, arguments: list[str], env: dict[str, str], about: str, says: str
) -> None:
    write(tmp_path, source)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy = str(listener.getsockname()[1])
        code, found = findings(call, *[text.replace("{busy}", busy) for text in arguments], env=env)
    assert code == 1
    ok, detail = found[about]
    assert not ok
    assert says in detail


def test_a_problem_is_marked_in_the_lines_for_people(call: Call, tmp_path: Path) -> None:
    write(tmp_path, PREDICATE_ONLY)
    ended = call("check", "--port", "0")
    assert ended.returncode == 1
    marked = [line for line in ended.stdout.splitlines() if line.startswith("problem  ")]
    assert marked == [
        "problem  listeners  nothing happens when the trigger fires: add @trigger.on(TRIGGER_EVENT_SUCCESS)"
    ]


def test_listeners_of_webhook_types_alone_are_in_order(call: Call, tmp_path: Path) -> None:
    listens = "@trigger.on('recording.finished')\ndef fetch(webhook):\n    pass\n"
    write(tmp_path, f"{NOTHING}{listens}")
    code, found = findings(call, "--port", "0")
    assert (code, found["listeners"]) == (0, (True, "1 for recording.finished"))


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("'hush'", "has a quotation mark at its beginning or end"),
        ("\u201chush", "has a quotation mark at its beginning or end"),
        ("WHEREBY_WEBHOOK_SECRET=hush", "begins with NAME="),
        ("\ufeffhush", "begins with a byte order mark (BOM)"),
        ("hu sh", "contains white space"),
    ],
)
def test_a_secret_that_looks_badly_copied_is_a_warning_that_does_not_show_it(
    call: Call, tmp_path: Path, secret: str, says: str
) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = call("check", "--port", "0", "--secret", secret)
    assert ended.returncode == 0
    (line,) = (line for line in ended.stdout.splitlines() if "  secret" in line)
    assert line.startswith("warning")
    assert says in line
    assert "hush" not in line
