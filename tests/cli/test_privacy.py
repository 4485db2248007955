"""No body, name, metadata or secret is printed by anything but `events show`, whatever goes wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import write
from tests.support.stored import stored
from tests.support.until import until
from tests.support.whereby import deliver, post
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
    """Return all that a server printed while everything went wrong with webhooks that name a person."""
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
