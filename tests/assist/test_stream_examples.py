"""The examples of an assistant that follows its room: the one in Python as it is, the one on Node.js against a stub."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.assist.stub_room import StubRoom, Visitor, install_stub
from tests.assist.test_node_example import EXAMPLES, NODE, URL, assistants
from tests.support.process import Process, whereby_trigger
from tests.support.until import until
from tests.support.whereby import SECRET, deliver
from whereby_trigger import Webhook
from whereby_trigger.testing import webhook

needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the example is a program for Node.js")
JOINED, LEFT = "room.client.joined", "room.client.left"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the examples as a user has them: beside the module that they import."""
    for name in ("stream_trigger.py", "stream_assistant.py", "stream_assistant.mjs", "assistant.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    install_stub(tmp_path)
    return tmp_path


@pytest.fixture
def room() -> Iterator[StubRoom]:
    with StubRoom() as room:
        yield room


@contextmanager
def serving(place: Path, **env: str) -> Iterator[tuple[Process, str]]:
    start = whereby_trigger("start", "stream_trigger.py", "--port", "0", "--store", "sqlite:///whereby-trigger.db")
    with Process(start, cwd=place, env={"WHEREBY_WEBHOOK_SECRET": SECRET} | env) as process:
        yield process, f"http://127.0.0.1:{process.port()}/"


def send(url: str, *webhooks: Webhook) -> None:
    for each in webhooks:
        assert deliver(url, each).status == 200


def people(count: int, type: str = JOINED) -> Webhook:
    roles = {"visitor": count} if count else {}
    return webhook(type, room_session_id="s1", num_clients=count, num_clients_by_role_name=roles)


def test_the_one_in_python_hears_who_is_there_and_leaves_when_nobody_is(place: Path) -> None:
    with serving(place) as (process, url):
        send(url, people(1))
        process.line(f"joining {URL}, attempt 1")
        process.line("people here: 1, since 20")
        send(url, people(2))
        process.line("people here: 2")
        send(url, people(0, LEFT))
        process.line("leaving: nobody is left; heard {'room.client.joined': 1, 'room.client.left': 1}")
        until(lambda: assistants(place)[0]["state"] == "ended")
        assert assistants(place)[0]["reason"] == "it left the room"


def test_the_one_in_python_says_why_it_leaves(place: Path) -> None:
    with serving(place) as (process, url):
        send(url, people(1))
        process.line("people here: 1")
        send(url, webhook("room.session.ended", room_session_id="s1"))
        process.line("leaving: the session has ended")
        until(lambda: assistants(place)[0]["state"] == "ended")


def joined(room: StubRoom) -> Visitor:
    visitor = room.next()
    assert visitor.does()["join"] == URL
    visitor.answer(joined=True)
    return visitor


@contextmanager
def node_in_room(place: Path, room: StubRoom) -> Iterator[tuple[Process, str, Visitor]]:
    """Start the example on Node.js in a room with one person."""
    with serving(place, ASSISTANT="node stream_assistant.mjs", **room.environment) as (process, url):
        send(url, people(1))
        yield process, url, joined(room)


@needs_node
def test_the_one_on_node_answers_what_happens_and_leaves_when_nobody_is_left(place: Path, room: StubRoom) -> None:
    with node_in_room(place, room) as (_, url, visitor):
        send(url, webhook("room.client.knocked"))
        assert visitor.does() == {"says": "Somebody is at the door."}
        send(url, people(0, LEFT))
        assert visitor.does() == {"leave": True}
        visitor.answer(left=True)
        visitor.gone()
        until(lambda: assistants(place)[0]["state"] == "ended")
        assert assistants(place)[0]["reason"] == "it left the room"


@needs_node
def test_the_one_on_node_leaves_at_the_end_of_file(place: Path, room: StubRoom) -> None:
    with node_in_room(place, room) as (_, url, visitor):
        send(url, webhook("room.session.ended", room_session_id="s1"))
        assert visitor.does() == {"leave": True}
        visitor.answer(left=True)
        visitor.gone()
        until(lambda: assistants(place)[0]["state"] == "ended")


@needs_node
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_the_one_on_node_leaves_when_the_trigger_is_killed(place: Path, room: StubRoom) -> None:
    with node_in_room(place, room) as (process, _, visitor):
        process.popen.send_signal(signal.SIGKILL)
        assert visitor.does() == {"leave": True}
        visitor.answer(left=True)
        visitor.gone()


@needs_node
def test_the_one_on_node_asks_for_another_try_when_its_connection_is_lost(place: Path, room: StubRoom) -> None:
    with node_in_room(place, room) as (process, url, visitor):
        send(url, webhook("room.client.knocked"))
        assert visitor.does() == {"says": "Somebody is at the door."}
        visitor.answer(status="reconnecting")
        visitor.answer(status="disconnected")
        visitor.gone()
        process.line("exited with 75: worth another try: restart 1 of 3")
        again = joined(room)
        # It gets again what has happened since the webhook that fired.
        assert again.does() == {"says": "Somebody is at the door."}
        again.answer(left=True)
        again.gone()
        until(lambda: assistants(place)[0]["state"] == "ended")
