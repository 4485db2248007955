"""No body, name, metadata or secret is printed by anything except `events show`, whatever fails.

With `redact`, they are in no file of the store either.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.cli.conftest import Call
from tests.inspector.conftest import form_token
from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import write
from tests.support.stored import stored
from tests.support.until import until
from tests.support.whereby import deliver, post
from whereby_trigger.store import Record
from whereby_trigger.testing import sign, webhook

SECRET, OTHER_SECRET = "hush-current", "hush-rotated"
PERSON = {"displayName": "Ada Lovelace", "metadata": "diagnosis: sleepless", "externalId": "patient-4711"}
PRIVATE = (*PERSON.values(), "Ada", "hush-", "forged-body")

RAISES_WITH_NAMES = """
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
def raising(webhook):
    raise ValueError(webhook.data.display_name, webhook.data.metadata, webhook.data.external_id, webhook)


@trigger.when("room.client.left")
async def async_raising(webhook):
    raise LookupError(webhook.raw)


@trigger.when("room.client.knocked")
def returning_text(webhook):
    return webhook.data.display_name


@trigger.when("room.client.knockCancelled")
def right(webhook):
    return True


@trigger.on(TRIGGER_EVENT_SUCCESS)
def sync_listener(success):
    raise RuntimeError(success.trigger_webhook.data.display_name)


@trigger.on(TRIGGER_EVENT_SUCCESS)
async def async_listener(success):
    raise RuntimeError(success.trigger_webhook.raw)
"""
TYPES = ("room.client.joined", "room.client.left", "room.client.knocked", "room.client.knockCancelled")
UNREADABLE = json.dumps({"id": 7, "type": "room.client.joined", "data": PERSON}).encode()
BROKEN = UNREADABLE[:-1]
UNKNOWN = json.dumps({"id": "u1", "type": "room.client.waved", "data": PERSON}).encode()
FORGED = json.dumps({"id": "f1", "type": "room.client.joined", "data": {"displayName": "forged-body"}}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("privacy")
    write(folder, RAISES_WITH_NAMES)
    return folder


@pytest.fixture(scope="module")
def log(folder: Path) -> Iterator[str]:
    """Return everything that a server printed while all went wrong with webhooks that name a person."""
    secrets = {"WHEREBY_WEBHOOK_SECRET": f"{SECRET},{OTHER_SECRET}"}
    with Process(whereby_trigger("start", "--port", "0", "--host", "127.0.0.1"), cwd=folder, env=secrets) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        sent = [webhook(type, room=f"/{number}", data=PERSON).raw for number, type in enumerate(TYPES)]
        for body in (*sent, sent[0], UNREADABLE, BROKEN, UNKNOWN):
            assert deliver(url, body, SECRET).status == 200
        for _ in range(3):
            assert deliver(url, FORGED, "another").status == 401
            assert deliver(url, FORGED, SECRET, age=900).status == 401
            assert post(url, FORGED, {"whereby-signature": sign(SECRET, b"", 0) + ",v1=Ada"}).status == 401
        assert deliver(url, FORGED * 5000, SECRET).status == 413
        store = f"sqlite:///{folder}/whereby-trigger.db"
        until(lambda: len(stored(store)) == 7 and all(record.state != "pending" for record in stored(store)))
        assert process.stop() == 0
        yield process.output


def test_the_log_of_a_server_holds_nothing_private(log: str) -> None:
    for word in PRIVATE:
        assert word not in log
    decisions = [json.loads(line).get("decision") for line in log.splitlines()]
    assert sorted(filter(None, decisions)) == [
        *("failed", "failed", "failed", "fired", "quarantined", "quarantined", "unhandled"),
    ]


def test_no_command_but_show_prints_anything_private(folder: Path, log: str) -> None:
    secrets = {"WHEREBY_WEBHOOK_SECRET": SECRET}
    commands = ("events list", "events list --json", "events replay --yes --state failed", "check --port 0", "config")
    for command in commands:
        ended = run(*command.split(), cwd=folder, env=secrets)
        assert ended.returncode == 0, ended.stderr
        for word in PRIVATE:
            assert word not in ended.stdout + ended.stderr, command


def test_show_is_where_bodies_and_exceptions_are_found(folder: Path, log: str) -> None:
    records = {record.type: record for record in stored(f"sqlite:///{folder}/whereby-trigger.db")}
    shown = run("events", "show", records["room.client.knockCancelled"].id, cwd=folder).stdout
    for word in PERSON.values():
        assert word in shown
    errors = [line for line in shown.splitlines() if line.startswith("error ")]
    assert "sync_listener" in errors[0]
    assert "Ada Lovelace" in errors[0]
    assert "async_listener" in errors[1]
    assert "Traceback" not in shown


def test_an_import_that_fails_shows_no_setting(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, "import os\nfrom whereby_trigger import Trigger\ntrigger = Trigger()\nraise ValueError('fruit')\n")
    ended = run("start", "--secret", SECRET, cwd=tmp_path, env={"WHEREBY_WEBHOOK_SECRET": OTHER_SECRET})
    assert ended.returncode == 2
    assert "fruit" in ended.stderr
    assert "hush-" not in ended.stderr


MARKED = {
    "displayName": "hallmark-name",
    "metadata": "hallmark-metadata",
    "externalId": "hallmark-external",
    "participantId": "hallmark-participant",
}
DIALS_IN = MARKED | {"displayName": "+47 hallmark-phone", "isDialIn": True}
REPEATS_IT = "import sys; said = sys.stdin.read(); print(said); sys.exit(said)"
SAYS_IT_EVERYWHERE = f"""
{RAISES_WITH_NAMES}

import sys

trigger.assistant_command([sys.executable, "-c", {REPEATS_IT!r}])
"""


def say_it_everywhere(folder: Path, *options: str) -> tuple[str, list[str]]:
    """Send marked webhooks to a program that repeats them everywhere; return its output, and all its answers.

    The answers are those to deliveries, at its metrics, and on each page of its inspector.
    """
    write(folder, SAYS_IT_EVERYWHERE)
    answers = []
    beside = ("--metrics", "127.0.0.1:0", "--inspector", "127.0.0.1:0")
    call = whereby_trigger("start", "--port", "0", "--host", "127.0.0.1", "--stop-grace", "1", *beside, *options)
    with Process(call, cwd=folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET}) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        for number, type in enumerate(TYPES):
            for person in (MARKED, DIALS_IN):
                answers.append(deliver(url, webhook(type, room=f"/{number}", data=person).raw, SECRET))
        marked = json.dumps({"id": 7, "type": "room.client.joined", "data": MARKED | {"inside": [MARKED]}}).encode()
        unknown = json.dumps({"id": "u", "type": "room.client.waved", "data": {"who": [MARKED]}}).encode()
        for body in (marked, marked[:-1], unknown):
            answers += [deliver(url, body, SECRET), deliver(url, body, "another"), post(url, body, {})]
        answers.append(post(f"{url}mark-path", marked, {}))
        store = f"sqlite:///{folder}/whereby-trigger.db"
        until(lambda: len(stored(store)) == 11 and all(record.state != "pending" for record in stored(store)))
        until(lambda: "exited with 1" in process.output)
        shown = pages(until(lambda: INSPECTOR.findall(process.output))[0], stored(store))
        shown.append(httpx.get(until(lambda: METRICS.findall(process.output))[0], timeout=60).text)
        assert "whereby_trigger" in shown[-1]
        assert process.stop() == 0
        return process.output, [*(f"{answer.status} {answer.body!r}" for answer in answers), *shown]


INSPECTOR = re.compile(r"inspector at (http://[\w.:]+/)")
METRICS = re.compile(r"metrics at (http://[\w.:]+/metrics)")


def pages(url: str, records: list[Record]) -> list[str]:
    """Read every address of the inspector about some webhooks, including the live part.

    Each webhook's predicate is also asked again from its page.
    """
    paths = ["", "rooms", "refusals", "health", "metrics", "webhook?id=none", "confirm?action=replay"]
    paths += [f"api/{name}" for name in ("webhooks", "rooms", "refusals", "health", "openapi.json")]
    ids = [urlencode({"id": record.id}) for record in records]
    keys = [urlencode({"key": key}) for key in {record.room for record in records} if key]
    paths += [f"{place}{id}" for id in ids for place in ("webhook?", "api/webhook?", "confirm?action=replay&")]
    paths += [f"{place}?{key}" for key in keys for place in ("room", "api/room")]
    with httpx.Client(base_url=url, timeout=60) as client:
        answers = [client.get(path) for path in paths]
        assert sum(answer.status_code == 200 for answer in answers) >= len(ids) * 3 + len(keys) * 2
        for record in records:
            token = form_token(client.get("webhook", params={"id": record.id}).text)
            answers.append(client.post("webhook/ask", data={"id": record.id, "form_token": token}))
        said = [answer.text for answer in answers]
        assert any("Asked without effect" in text or "cannot be asked" in text for text in said)
        with client.stream("GET", "live") as live:
            # What is already stored comes first.
            said.append(next(line for line in live.iter_lines() if line.startswith("data: ")))
        assert all(record.id in said[-1] for record in records)
    return said


def test_nothing_marked_is_in_a_log_an_answer_or_a_table(call: Call, tmp_path: Path) -> None:
    output, answers = say_it_everywhere(tmp_path)
    assert len({answer.split()[0] for answer in answers}) >= 3
    said = [output, *answers]
    about = ("--external-id", "hallmark-external")
    secret = {"WHEREBY_WEBHOOK_SECRET": SECRET}
    rooms = (
        "rooms list",
        "rooms list --json",
        "rooms show 0",
        "rooms show 3 --json",
        "refusals",
        "backtest --since 1h",
    )
    lists = ("events list", "events list --json", "assistants list", "assistants list --json", "check --port 0")
    for command in (*lists, *rooms):
        ended = call(*command.split(), env=secret)
        said += [ended.stdout, ended.stderr]
    dry, exported = call("forget", "--dry-run", *about), call("events", "export", *about)
    said += [dry.stdout, dry.stderr, exported.stderr]
    for text in said:
        assert "hallmark-" not in text
    assert exported.stdout.count("hallmark-name") >= len(TYPES)
    forgotten = call("forget", "--yes", *about)
    assert (forgotten.returncode, forgotten.stdout.count("hallmark-")) == (0, 0), forgotten.stderr
    for command in (*lists, *rooms):
        assert call(*command.split(), env=secret).returncode == 0, command
    assert_nowhere_in(tmp_path)


def test_with_redact_nothing_marked_is_in_the_stores_files_once_all_is_decided(tmp_path: Path) -> None:
    say_it_everywhere(tmp_path, "--redact", ",".join(MARKED))
    assert_nowhere_in(tmp_path)
    records = stored(f"sqlite:///{tmp_path}/whereby-trigger.db")
    assert sum(record.body.count(b"[[removed]]") for record in records) > len(records)
    assert any("listener sync_listener: raised RuntimeError" in record.errors for record in records)


def assert_nowhere_in(folder: Path) -> None:
    files = [file for file in folder.iterdir() if file.name.startswith("whereby-trigger.db")]
    assert files
    for file in files:
        assert b"hallmark-" not in file.read_bytes(), file
