"""`send`: a realistic webhook of each type, signed and posted as Whereby does it, and its answer."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, free_port, write
from tests.support.stored import stored
from tests.support.whereby import SECRET
from whereby_trigger.store import Record
from whereby_trigger.webhook import WEBHOOK_TYPES


@dataclass(frozen=True)
class Server:
    """Hold the address of a running trigger, and its store."""

    url: str
    store: str

    def newest(self) -> Record:
        return stored(self.store)[-1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    write(folder, HUMANS_JOIN)
    options = ("--port", "0", "--host", "127.0.0.1", "--path", "/hooks", "--secret", SECRET)
    with Process(whereby_trigger("start", *options), cwd=folder) as process:
        yield Server(f"http://127.0.0.1:{process.port()}/hooks", f"sqlite:///{folder}/whereby-trigger.db")


def send(call: Call, server: Server, *arguments: str) -> Any:
    return call("send", *arguments, "--url", server.url, "--secret", SECRET)


def test_it_prints_the_answer_and_the_id_and_exits_0(server: Server, tmp_path: Path) -> None:
    ended = run("send", "room.client.joined", "--url", server.url, "--secret", SECRET, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    status, phrase, type, id, milliseconds, unit = ended.stdout.split()
    assert (status, phrase, type, unit) == ("200", "OK", "room.client.joined", "ms")
    assert 0 < float(milliseconds) < 5000
    assert server.newest().id == id


@pytest.mark.parametrize("type", WEBHOOK_TYPES)
def test_every_type_of_wherebys_can_be_sent(call: Call, server: Server, type: str) -> None:
    assert send(call, server, type).returncode == 0
    assert server.newest().type == type
    assert server.newest().state != "quarantined"


def test_options_override_what_the_builder_makes_up(call: Call, server: Server) -> None:
    options = ("--room", "consult", "--subdomain", "clinic", "--id", "an id", "--data", '{"roleName": "recorder"}')
    assert send(call, server, "room.client.joined", *options).returncode == 0
    newest = server.newest()
    assert (newest.id, newest.room) == ("an id", "clinic.whereby.com/consult")
    assert json.loads(newest.body)["data"]["roleName"] == "recorder"


@pytest.mark.parametrize("room", ["https://Clinic.whereby.com/consult-2?key=1", "clinic.whereby.com/consult-2"])
def test_a_room_may_be_named_by_its_url_or_its_key(call: Call, server: Server, room: str) -> None:
    assert send(call, server, "room.client.joined", "--room", room).returncode == 0
    assert server.newest().room == "clinic.whereby.com/consult-2"
    ended = send(call, server, "room.client.joined", "--room", room, "--subdomain", "acme")
    assert (ended.returncode, "--subdomain" in ended.stderr) == (2, True)


def test_half_an_emoji_is_sent_as_javascript_writes_it(call: Call, server: Server) -> None:
    assert send(call, server, "room.client.joined", "--data", r'{"displayName": "Zo\ud83d"}').returncode == 0
    assert rb'"Zo\ud83d"' in server.newest().body
    assert server.newest().state != "quarantined"


def sessions(server: Server, room: str) -> list[str | None]:
    """Return the sessions of a room's webhooks, in order of arrival."""
    records = [record for record in stored(server.store) if record.room == f"acme.whereby.com{room}"]
    return [json.loads(record.body)["data"].get("roomSessionId") for record in records]


def test_a_room_keeps_its_session_from_call_to_call_until_it_has_ended(call: Call, server: Server) -> None:
    def sent(type: str, *options: str) -> None:
        assert send(call, server, type, "--room", "/kept", "--store", server.store, *options).returncode == 0

    sent("room.client.joined")
    sent("room.client.left")
    sent("room.session.ended")
    sent("room.client.joined")
    sent("room.client.joined", "--new-session")
    sent("room.client.left")
    sent("room.client.left", "--session", "mine")
    sent("room.session.started")
    sent("room.client.left", "--data", '{"roomSessionId": null}')
    sent("room.client.left")
    first, left, ended, second, third, of_third, mine, started, none, last = sessions(server, "/kept")
    assert first == left == ended
    assert len({first, second, third, started}) == 4
    assert (of_third, mine, none, last) == (third, "mine", None, started)


def test_a_late_end_of_the_last_meeting_leaves_a_room_in_its_session(call: Call, server: Server) -> None:
    def sent(type: str, *options: str) -> None:
        assert send(call, server, type, "--room", "/late", "--store", server.store, *options).returncode == 0

    sent("room.client.joined", "--session", "first")
    sent("room.client.joined", "--session", "second")
    sent("room.session.ended", "--session", "first")
    sent("room.client.left")
    assert sessions(server, "/late")[-1] == "second"


def test_session_and_new_session_together_are_a_wrong_call(call: Call, server: Server) -> None:
    ended = send(call, server, "room.client.joined", "--session", "x", "--new-session")
    assert (ended.returncode, "choose one of them" in ended.stderr) == (2, True)


def test_each_type_that_names_a_session_takes_the_one_that_is_named(call: Call, server: Server) -> None:
    for type in ("transcription.started", "transcription.finished", "transcription.failed", "assistant.requested"):
        ended = send(call, server, type, "--session", "mine", "--id", f"of-{type}", "--store", server.store)
        assert ended.returncode == 0, ended.stderr
        (record,) = [record for record in stored(server.store) if record.id == f"of-{type}"]
        assert json.loads(record.body)["data"]["roomSessionId"] == "mine"
    ended = send(call, server, "recording.finished", "--session", "mine")
    assert (ended.returncode, "recording.finished names no session" in ended.stderr) == (2, True)


def test_wait_prints_the_decision_and_its_reason(call: Call, server: Server) -> None:
    store = ("--store", server.store)
    fired = send(call, server, "room.client.joined", "--wait", *store)
    assert fired.stdout.splitlines()[1] == "fired  predicate people returned True"
    unhandled = send(call, server, "room.client.knocked", "--wait", *store)
    assert unhandled.stdout.splitlines()[1].startswith("unhandled  no predicate")


def test_wait_on_a_store_of_another_server_says_which_to_name(
    call: Call, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("whereby_trigger.cli.send"), "DECIDED_WITHIN", 0.0)
    other = f"sqlite:///{tmp_path}/other.db"
    assert call("db", "migrate", "--store", other).returncode == 0
    ended = send(call, server, "room.client.joined", "--wait", "--store", other)
    assert ended.returncode == 1
    assert "name the store of the server that took it, with --store" in ended.stderr


def test_a_duplicate_is_called_one(call: Call, server: Server) -> None:
    def said(*options: str) -> list[bool]:
        ended = send(call, server, "room.client.left", "--store", server.store, *options)
        return [line.endswith(" ms  duplicate") for line in ended.stdout.splitlines()]

    assert said("--id", "twice") == [False]
    assert said("--id", "twice") == [True]
    assert said("--duplicate", "2") == [False, True, True]
    assert said("--id", "twice", "--bad-signature") == [False]


def test_duplicates_are_answered_each_and_stored_once(call: Call, server: Server) -> None:
    ended = send(call, server, "room.session.started", "--duplicate", "2")
    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stdout.splitlines()] == ["200", "200", "200"]
    assert len({line.split()[3] for line in ended.stdout.splitlines()}) == 1
    assert server.newest().deliveries == 3


@pytest.mark.parametrize("option", ["--bad-signature", "--stale"])
def test_a_refusal_that_was_asked_for_exits_0_and_stores_nothing(call: Call, server: Server, option: str) -> None:
    before = len(stored(server.store))
    ended = send(call, server, "room.client.joined", option)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("401 Unauthorized")
    assert len(stored(server.store)) == before


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (
            ["--secret", "another"],
            "401",
            "the server checks with another secret: set --secret",
        ),
        ([], "401", "The webhook was sent unsigned, and the server checks signatures"),
        (["--secret", SECRET, "--url", "{elsewhere}"], "404", "the server takes deliveries at another path"),
        (["--secret", SECRET, "--data", '{"displayName": "{long}"}'], "413", "larger than the server's max_body"),
    ],
)
def test_an_answer_that_should_not_be_exits_1_with_a_hint(
    call: Call, server: Server, arguments: list[str], status: str, hint: str
) -> None:
    elsewhere = server.url.replace("/hooks", "/nowhere")
    filled = [text.replace("{elsewhere}", elsewhere).replace("{long}", "x" * 300_000) for text in arguments]
    ended = call("send", "room.client.joined", "--url", server.url, *filled)
    assert ended.returncode == 1
    assert ended.stdout.startswith(status)
    assert hint in ended.stderr


def test_a_forgery_that_is_let_in_exits_1(tmp_path: Path, call: Call) -> None:
    write(tmp_path, HUMANS_JOIN)
    with Process(whereby_trigger("dev", "--no-reload", "--port", "0"), cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        ended = call("send", "room.client.joined", "--bad-signature", "--url", url)
    assert ended.returncode == 1
    assert "The right answer is 401: check that the server has a secret" in ended.stderr


def test_url_and_secret_are_those_of_dev_in_the_same_folder(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN.replace("Trigger()", f"Trigger(port={free_port()}, path='/hooks', secret='kept here')"))
    with Process(whereby_trigger("dev", "--no-reload"), cwd=tmp_path) as process:
        process.port()
        sent = run("send", "room.client.joined", cwd=tmp_path)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert run("send", "room.client.joined", "--stale", cwd=tmp_path).stdout.startswith("401")


def test_a_path_that_is_not_ascii_is_written_as_urls_have_it(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN.replace("Trigger()", f"Trigger(port={free_port()}, path='/grö ße/x', secret='s')"))
    with Process(whereby_trigger("dev", "--no-reload"), cwd=tmp_path) as process:
        port = process.port()
        sent = run("send", "room.client.joined", cwd=tmp_path)
        assert (sent.returncode, sent.stderr) == (0, "")
        for path in ("/grö%20ße/x", "/gr%C3%B6 %c3%9fe/x?größe=1"):
            sent = run("send", "room.client.joined", "--url", f"http://127.0.0.1:{port}{path}", cwd=tmp_path)
            assert (sent.returncode, sent.stderr) == (0, "")


def test_the_environment_gives_port_and_secret_where_no_program_does(tmp_path: Path) -> None:
    environment = {"PORT": str(free_port()), "WHEREBY_WEBHOOK_SECRET": "new,old"}
    write(tmp_path, HUMANS_JOIN, "elsewhere/app.py")
    program = whereby_trigger("start", "elsewhere/app.py", "--host", "127.0.0.1")
    with Process(program, cwd=tmp_path, env=environment) as process:
        process.port()
        assert run("send", "assistant.requested", cwd=tmp_path, env=environment).returncode == 0


def test_a_path_of_bytes_that_are_no_text_is_sent_as_these_bytes(call: Call, server: Server) -> None:
    ended = call("send", "room.client.joined", "--url", server.url.replace("hooks", "\udcff"), "--secret", SECRET)
    assert ended.returncode == 1
    assert ended.stdout.startswith("404")


def test_a_refused_connection_names_the_url_and_the_command_that_listens(call: Call) -> None:
    url = f"http://127.0.0.1:{free_port()}/x"
    ended = call("send", "room.client.joined", "--url", url)
    assert ended.returncode == 1
    assert f"nothing listens at {url} (connection refused): start `whereby-trigger dev` there" in ended.stderr
    assert ended.stdout == ""


def test_a_server_that_does_not_answer_is_given_up_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("whereby_trigger.cli.send"), "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = call("send", "room.client.joined", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}/")
    assert ended.returncode == 1
    assert "no answer from http://127.0.0.1:" in ended.stderr


def test_an_address_that_speaks_something_else_is_no_traceback(call: Call, server: Server) -> None:
    ended = call("send", "room.client.joined", "--url", server.url.replace("http", "https"))
    assert ended.returncode == 1
    assert "SSLError" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("subdomain", ["../x", "evil.example/x?", "a.b", ""])
def test_a_subdomain_that_is_no_host_label_is_a_wrong_call(call: Call, subdomain: str) -> None:
    ended = call("send", "room.client.joined", "--subdomain", subdomain, "--url", "http://127.0.0.1:1/")
    assert ended.returncode == 2
    assert "--subdomain must be" in ended.stderr


@pytest.mark.parametrize("command", [["start"], ["check"], ["config"], ["dev", "--no-reload"]])
def test_a_path_that_is_not_utf_8_is_a_wrong_call(tmp_path: Path, command: list[str]) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = run(*command, "--path", "/\udcff", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 2
    assert "--path must be UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_sent_from_this_machine_without_a_secret_is_taken_and_called_unsigned(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    with Process(whereby_trigger("dev", "--no-reload", "--port", "0"), cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        assert "set WHEREBY_WEBHOOK_SECRET" in process.line("UNSIGNED: no secret is set")
        assert run("send", "room.client.joined", "--url", url, cwd=tmp_path).returncode == 0
        assert '"unsigned": true' in process.line("room.client.joined")
