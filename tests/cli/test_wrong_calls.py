"""Wrong calls: each exits with code 2 and prints on standard error what is wrong, why and what to do."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.programs import HUMANS_JOIN, write


def corrupt(folder: Path) -> None:
    (folder / "whereby-trigger.db").write_bytes(b"not a database" * 400)


def in_the_way(folder: Path) -> None:
    (folder / "whereby-trigger.db").mkdir()


CALLS = [
    ("--nonsense", {}, "No such option"),
    ("strat", {}, "No such command"),
    ("start nowhere.py", {}, "there is no file"),
    ("start app.py:missing", {}, "has no missing"),
    ("start app.py:people", {}, "is a function, not a Trigger"),
    ("start nowhere:trigger", {}, "no module nowhere is found"),
    ("start not-a-name:trigger", {}, "write file.py or module:attribute"),
    ("start --port abc", {}, "--port must be a whole number from 0 to 65535, not 'abc'"),
    ("start --port 70000", {}, "--port must be a whole number"),
    ("start --path nowhere", {}, "--path must start with '/'"),
    ("start --retention soon", {}, "--retention must be seconds"),
    ("start --max-age 10 --drain-timeout 20", {}, "must exceed --drain-timeout"),
    ("start --secret=", {}, "blank secret"),
    ("start", {"WHEREBY_WEBHOOK_SECRET": " "}, "WHEREBY_WEBHOOK_SECRET holds a blank secret"),
    ("start", {"WHEREBY_TRIGGER_PORT": "x"}, "WHEREBY_TRIGGER_PORT must be a whole number"),
    ("start", {"PORT": "3000"}, "PORT is set, so outside traffic is expected here, but there is no secret"),
    ("start --host 0.0.0.0", {}, "would serve other machines, but there is no secret"),
    ("start --port 0 --host 203.0.113.7 --secret s", {}, "is not an address of this machine"),
    ("start --port 0 --host no.such.host.invalid --secret s", {}, "is not an address of this machine"),
    ("start --port 0 --store sqlite:///no/such/folder/a.db", {}, "does not exist: create it"),
    ("start --port 0 --store mysql://x", {}, "is of no known kind"),
    ("start --port 0 --store=", {}, "--store must be a string"),
    ("dev --port abc", {}, "--port must be a whole number"),
    ("dev --drain-timeout soon", {}, "--drain-timeout must be seconds"),
    ("dev --max-age 10 --drain-timeout 20", {}, "must exceed --drain-timeout"),
    ("dev nowhere.py", {}, "there is no file"),
    ("dev --port 0 --store sqlite:///no/such/folder/a.db", {}, "does not exist: create it"),
    ("send", {}, "Missing argument 'TYPE'"),
    ("send room.client.join", {}, "Did you mean 'room.client.joined'?"),
    ("send room.client.joined --data {", {}, "--data is not JSON"),
    ("send room.client.joined --data []", {}, "--data is not a JSON object"),
    ("send room.client.joined --duplicate -1", {}, "--duplicate"),
    ("send room.client.joined --url ftp://x", {}, "is not an http or https URL"),
    ("send room.client.joined --url http://x:99999", {}, "is not a URL"),
    ("send room.client.joined --url http://my..host/", {}, "is not a URL"),
    ("send room.client.joined --stale", {}, "--stale needs the right secret"),
    ("send room.client.joined --id=", {}, "change --data or --id"),
    ("events list", {}, "there is no store at"),
    ("events list --state gone", {}, "'gone' is not one of"),
    ("events list --limit 0", {}, "--limit"),
    ("events list --room https://example.com/x", {}, "Not the https URL of a room"),
    ("events show abc", {}, "there is no store at"),
    ("events replay", {}, "name the webhooks to replay by ID"),
    ("events replay abc", {}, "there is no store at"),
    ("db prune", {}, "there is no store at"),
    ("db prune --older-than -1", {}, "--older-than"),
    ("db migrate --store sqlite:///no/such/folder/a.db", {}, "does not exist: create it"),
    ("check nowhere.py", {}, "there is no file"),
    ("config --port abc", {}, "--port must be a whole number"),
]


@pytest.mark.parametrize(("arguments", "environment", "says"), CALLS, ids=[arguments for arguments, _, _ in CALLS])
def test_a_wrong_call_exits_2_and_says_why_in_three_lines_at_most(
    tmp_path: Path, call: Call, arguments: str, environment: dict[str, str], says: str
) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = call(*arguments.split(" "), env=environment)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 3
    assert ended.stdout == ""
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == []


def test_data_that_is_nested_too_deeply_is_a_wrong_call(call: Call) -> None:
    ended = call("send", "room.client.joined", "--data", f'{{"a": {"[" * 20_000}{"]" * 20_000}}}')
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Error: --data is not JSON (")


def test_a_host_with_a_space_is_a_wrong_call(call: Call) -> None:
    ended = call("send", "room.client.joined", "--url", "http://my host/")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--url 'http://my host/' is not an http or https URL" in ended.stderr


@pytest.mark.parametrize(
    ("prepare", "says"),
    [(corrupt, "is damaged or is no SQLite file"), (in_the_way, "is a folder: name a file in it")],
)
@pytest.mark.parametrize("command", ["start", "dev"])
def test_a_store_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, call: Call, command: str, prepare: Callable[[Path], None], says: str
) -> None:
    write(tmp_path, HUMANS_JOIN)
    prepare(tmp_path)
    ended = call(command, "--port", "0")
    assert ended.returncode == 2
    assert str(tmp_path / "whereby-trigger.db") in ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["start", "dev"])
def test_a_busy_port_is_named(tmp_path: Path, call: Call, command: str) -> None:
    write(tmp_path, HUMANS_JOIN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = call(command, "--port", str(port))
    assert ended.returncode == 2
    assert f"port {port} is in use on 127.0.0.1: stop what listens there" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_program_at_all_says_which_names_were_tried(tmp_path: Path, call: Call) -> None:
    ended = call("start")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"Error: none of app.py, main.py, trigger.py is in {tmp_path}: name your program, e.g. path/to/file.py\n"
    )
