"""No payload can steer a terminal, forge a line or turn a text around in any command's output."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Call
from tests.support.process import whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.terminal import Terminal, run_on_terminal
from tests.support.whereby import SECRET, deliver
from whereby_trigger.cli import commands
from whereby_trigger.store import Arrival, RoomMove, RoomRequest, RoomState, RunReport, State
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing import webhook

NASTY = (
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b2Jc1",
    "\u202eturned\u2066",
    "line\n2026-01-01 forged",
    "carriage\rreturn\x08",
    "para\u2029graph\u2028next\x85",
    "<script>alert(1)</script>",
    "\u200bno\ufeffwidth",
)
TEXTS = {"all": "".join(NASTY), **{str(number): nasty for number, nasty in enumerate(NASTY)}}
STEERS = re.compile(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
STYLES = re.compile(r"\x1b\[[0-9;]*m")
FORGED = re.compile(r"^ *2026-01-01 forged", re.MULTILINE)

SAID = "\n".join(nasty for nasty in NASTY if not FORGED.search(nasty))
"""An assistant's error or output has its own lines."""

PREFIX = "same"
ROOM_URL = "https://acme.whereby.com/visit-1"
HOSTILE_ROOM = "https://acme.whereby.com/%1b%5d0;title%07%e2%80%ae"

CALLS = {
    "events list": ["events list", "events list --limit 5", "events list --room nothing"],
    "events show": [f"events show {PREFIX}-all", f"events show {PREFIX}"],
    "events replay": [f"events replay --yes --state {State.QUARANTINED}", f"events replay {PREFIX}"],
    "events export": [f"events export --room {HOSTILE_ROOM}", "events export --room visit-1"],
    "forget": [
        "forget --dry-run --room \x9b2Jc1",
        "forget --yes --room visit-1",
        "forget --yes --participant \x1b[2J",
    ],
    "assistants list": ["assistants list"],
    "assistants show": [f"assistants show {ROOM_URL}", f"assistants show {HOSTILE_ROOM}"],
    "assistants start": [f"assistants start {HOSTILE_ROOM}", f"assistants start {ROOM_URL}"],
    "assistants stop": [f"assistants stop {HOSTILE_ROOM}"],
    "rooms list": ["rooms list"],
    "rooms show": [f"rooms show {ROOM_URL}", f"rooms show {HOSTILE_ROOM}"],
    "refusals": ["refusals --since 1h"],
    "backtest": ["backtest --since 1h"],
    "check": ["check"],
    "config": ["config"],
    "db migrate": ["db migrate"],
    "db prune": ["db prune --yes --older-than 1"],
    "send": ["send room.client.joined --url {url} --secret s --id \x1b]0;title\x07\u202e"],
}
SERVING = ("dev", "start")
REDRAWS = ("backtest",)
"""Commands that show their progress on a terminal, in a line that they redraw."""

OF_ITS_OWN = {
    "demo": "it plays with payloads of its own, on a store that must be empty",
    "simulate": "it sends payloads of its own, and prints numbers",
    "inspect": "it prints its address; its pages are tried in tests/inspector",
}


def leaves(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_command_is_tried() -> None:
    assert sorted(leaves(commands)) == sorted([*CALLS, *SERVING, *OF_ITS_OWN])


async def fill(url: str) -> None:
    """Store webhooks whose every text is hostile, and rooms whose assistants printed such texts."""
    store = SqliteStore(url)
    await store.open(lambda: None)
    for name, nasty in TEXTS.items():
        body = json.dumps({"id": nasty, "data": {"displayName": nasty}}, ensure_ascii=False).encode()
        id, type, room = f"{PREFIX}-{name}{nasty}", f"type{nasty}", f"acme.whereby.com/{nasty}"
        await store.add(Arrival(id, type, room, body, time.time() - 9, State.QUARANTINED, f"odd {nasty}"))
        await store.add(Arrival(f"raw-{name}{nasty}", type, room, nasty.encode(), time.time(), State.QUARANTINED, ""))
    for number, nasty in enumerate(NASTY):
        key = "acme.whereby.com/visit-1" if not number else f"acme.whereby.com/{number}{nasty}"
        await store.request(RoomRequest(key, ROOM_URL + nasty, nasty, None, time.time()))
    for taken in await store.take(100):
        await store.move(RoomMove(taken.id, RoomState.FAILED, NASTY[0], run=RunReport(output=SAID)))
    await store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, HUMANS_JOIN)
    asyncio.run(fill(f"sqlite:///{tmp_path}/whereby-trigger.db"))
    return tmp_path


@pytest.fixture
def hostile_server() -> Iterator[str]:
    """Answer each delivery with a reason that would steer a terminal."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.wfile.write(b"HTTP/1.1 200 \x1b]0;title\x07\x9b2J\r\nContent-Length: 0\r\n\r\n")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def steers(shown: str) -> list[str]:
    """List the parts of a command's output that are not its own."""
    plain = STYLES.sub("", shown)
    return [*STEERS.findall(plain), *FORGED.findall(plain)]


@pytest.mark.parametrize("command", CALLS)
def test_what_a_payload_holds_is_shown_with_its_escapes(
    call: Call, folder: Path, hostile_server: str, command: str
) -> None:
    env = {"WHEREBY_WEBHOOK_SECRET": "s"}
    for words in CALLS[command]:
        arguments = words.replace("{url}", hostile_server).split(" ")
        piped = call(*arguments, env=env)
        assert piped.stdout + piped.stderr
        assert steers(piped.stdout + piped.stderr) == [], words
        if command not in REDRAWS:
            assert steers(run_on_terminal(*arguments, cwd=folder, env=env)) == [], words


@pytest.mark.parametrize("words", ["events list --json", f"events show {PREFIX}-1 --json", "assistants list --json"])
def test_json_holds_what_the_payload_held(call: Call, folder: Path, words: str) -> None:
    objects = [json.loads(line) for line in call(*words.split()).stdout.splitlines()]
    assert any(text in value for found in objects for value in map(str, found.values()) for text in NASTY)


@pytest.mark.parametrize("command", SERVING)
def test_what_a_payload_holds_is_logged_with_its_escapes(folder: Path, command: str) -> None:
    env = {"WHEREBY_WEBHOOK_SECRET": SECRET}
    arguments = (
        *whereby_trigger(command, "--port", "0", "--host", "127.0.0.1"),
        *(["--no-reload"] * (command == "dev")),
    )
    with Terminal(arguments, cwd=folder, env=env) as terminal:
        url = terminal.until(r"(http://127.0.0.1:[0-9]+/)")[1]
        for number, nasty in enumerate(NASTY):
            odd = {"id": f"{number}{nasty}", "type": f"type{nasty}", "data": {"roomName": nasty, "displayName": nasty}}
            assert deliver(url, json.dumps(odd).encode()).status == 200
        known = webhook("room.client.joined", room="/visit-1", role_name="\x1b]0;title\x07")
        assert deliver(url, known).status == 200
        terminal.until("room.client.joined")
        shown = terminal.stop()
    assert steers(shown) == []
    assert shown.count(" 200 ") == len(NASTY) + 1
