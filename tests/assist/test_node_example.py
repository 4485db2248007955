"""examples/assistant.mjs, run by Node.js: against a stub of Whereby's SDK, which needs an account."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.assist.stub_room import StubRoom, Visitor, install_stub
from tests.support.process import Process, clean_environment, run, whereby_trigger
from tests.support.until import until
from tests.support.whereby import SECRET, deliver
from whereby_trigger.testing import webhook

EXAMPLES = Path(__file__).parents[2] / "examples"
NODE = shutil.which("node")
URL = "https://acme.whereby.com/visit-1"
PASSING = [
    "room_empty",
    "room_full",
    "room_locked",
    "room_concurrency_control_error",
    "host_presence_controls_error",
    "unique_role_already_in_room",
    "max_viewer_limit_reached",
    "internal_server_error",
]
FINAL = [
    "invalid_assistant_key",
    "organization_assistant_not_found",
    "organization_assistant_not_enabled",
    "room_unclaimed",
    "room_join_permission_denied",
    "room_meeting_time_exhausted",
    "free_tier_exhausted",
    "invalid_room_name",
    "invalid_key",
]
GREETING = {"says": "Hello, the assistant is here."}
WITHIN = 20.0

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: the example is a program for Node.js")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the example as a user has it: beside the module that it imports."""
    for name in ("assistant.mjs", "node_assistant.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    install_stub(tmp_path)
    return tmp_path


@pytest.fixture
def room() -> Iterator[StubRoom]:
    with StubRoom() as room:
        yield room


@contextmanager
def node(folder: Path, room: StubRoom, stdin: str = json.dumps({"roomUrl": URL}), **env: str) -> Iterator[Any]:
    """Run the example alone, with the input that whereby-trigger would give it."""
    with subprocess.Popen(
        [str(NODE), "assistant.mjs"],
        cwd=folder,
        env=clean_environment(room.environment | env),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
            yield process
        finally:
            process.kill()


def joined(room: StubRoom) -> Visitor:
    """Admit the next assistant, and return its visitor."""
    visitor = room.next()
    assert visitor.does()["join"] == URL
    visitor.answer(joined=True)
    assert visitor.does() == GREETING
    return visitor


def assistants(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("assistants", "list", "--json", cwd=folder).stdout.splitlines()]


def test_from_the_webhook_that_fires_to_the_end_of_the_session(folder: Path, room: StubRoom) -> None:
    environment = room.environment | {"WHEREBY_WEBHOOK_SECRET": SECRET}
    start = whereby_trigger("start", "node_assistant.py", "--port", "0", "--store", "sqlite:///whereby-trigger.db")
    with Process(start, cwd=folder, env=environment) as process:
        url = f"http://127.0.0.1:{process.port()}/"
        person = webhook("room.client.joined", room="/visit-1", id="w1", room_session_id="s1")
        assert deliver(url, person).status == 200
        visitor = room.next()
        joins = visitor.does()
        joins["variables"].pop("WHEREBY_ASSISTANT_RUN")
        assert joins == {
            "join": URL,
            "key": "the key",
            "variables": {"WHEREBY_ROOM_URL": URL, "WHEREBY_ROOM_NAME": "/visit-1", "WHEREBY_WEBHOOK_ID": "w1"},
        }
        visitor.answer(joined=True)
        assert visitor.does() == GREETING
        live = until(lambda: [fields for fields in assistants(folder) if fields["state"] == "live"])[0]
        os.kill(live["pid"], 0)
        # Its own join is no reason to greet again.
        bot = webhook("room.client.joined", room="/visit-1", role_name="assistant", room_session_id="s1")
        assert deliver(url, bot).status == 200
        assert deliver(url, webhook("room.session.ended", room="/visit-1", room_session_id="s1")).status == 200
        assert visitor.does() == {"leave": True}
        visitor.answer(left=True)
        visitor.gone()
        until(lambda: assistants(folder)[0]["state"] == "ended")
        (ended,) = assistants(folder)
        assert (ended["reason"], ended["attempt"]) == ("the session has ended", 1)
        with pytest.raises(ProcessLookupError):
            os.kill(live["pid"], 0)


def test_a_room_that_is_empty_yet_is_tried_again_and_a_removal_ends_it(folder: Path, room: StubRoom) -> None:
    environment = room.environment | {"WHEREBY_WEBHOOK_SECRET": SECRET}
    with Process(whereby_trigger("start", "node_assistant.py", "--port", "0"), cwd=folder, env=environment) as process:
        asked = webhook("assistant.requested", room="/visit-1")
        assert deliver(f"http://127.0.0.1:{process.port()}/", asked).status == 200
        first = room.next()
        first.does()
        first.answer(refused="room_empty")
        first.gone()
        process.line("exited with 75: worth another try: restart 1 of 3")
        visitor = joined(room)
        visitor.answer(left=True)
        visitor.gone()
        until(lambda: assistants(folder)[0]["state"] == "ended")
        (ended,) = assistants(folder)
        assert (ended["reason"], ended["attempt"]) == ("it left the room", 2)


def test_a_room_that_refuses_for_good_fails_at_once_with_the_reason(folder: Path, room: StubRoom) -> None:
    environment = room.environment | {"WHEREBY_WEBHOOK_SECRET": SECRET}
    with Process(whereby_trigger("start", "node_assistant.py", "--port", "0"), cwd=folder, env=environment) as process:
        asked = webhook("assistant.requested", room="/visit-1")
        assert deliver(f"http://127.0.0.1:{process.port()}/", asked).status == 200
        visitor = room.next()
        visitor.does()
        visitor.answer(refused="organization_assistant_not_enabled")
        visitor.gone()
        until(lambda: assistants(folder)[0]["state"] == "failed")
        (failed,) = assistants(folder)
        assert (failed["reason"], failed["attempt"]) == ("exited with 69: not worth another try", 1)
        shown = run("assistants", "show", "visit-1", cwd=folder).stdout
        assert "not let into the room: organization_assistant_not_enabled" in shown


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (PASSING[0], 75),
        (PASSING[-1], 75),
        (FINAL[0], 69),
        (FINAL[-1], 69),
        ("a_code_that_is_new", 1),
    ],
)
def test_the_exit_code_says_whether_another_try_makes_sense(
    folder: Path, room: StubRoom, refusal: str, code: int
) -> None:
    """The SDK rejects with a string, whatever the error is: see RoomJoinedErrors in whereby/sdk."""
    with node(folder, room) as process:
        visitor = room.next()
        visitor.does()
        visitor.answer(refused=refusal)
        assert process.communicate(timeout=WITHIN)[1] == f"not let into the room: {refusal}\n"
        assert process.returncode == code


def test_asked_to_leave_while_it_joins_it_goes_at_once(folder: Path, room: StubRoom) -> None:
    with node(folder, room) as process:
        visitor = room.next()
        visitor.does()
        process.terminate()
        assert process.wait(WITHIN) == 0
        visitor.gone()


def test_asked_to_leave_it_goes_even_if_the_room_never_says_that_it_has_left(folder: Path, room: StubRoom) -> None:
    with node(folder, room) as process:
        visitor = joined(room)
        process.terminate()
        assert visitor.does() == {"leave": True}
        assert process.wait(WITHIN) == 0


def test_a_person_may_start_it_with_the_room_in_the_environment(folder: Path, room: StubRoom) -> None:
    with node(folder, room, "", WHEREBY_ROOM_URL=URL) as process:
        visitor = joined(room)
        visitor.answer(left=True)
        assert process.wait(WITHIN) == 0


def test_without_a_key_it_says_what_to_do(folder: Path, room: StubRoom) -> None:
    with node(folder, room, ASSISTANT_KEY="") as process:
        assert "ASSISTANT_KEY is not set: create an assistant" in process.communicate(timeout=WITHIN)[1]
        assert process.returncode == 69


def test_a_connection_that_is_lost_is_worth_another_try(folder: Path, room: StubRoom) -> None:
    with node(folder, room) as process:
        visitor = joined(room)
        visitor.answer(status="reconnecting")
        visitor.answer(status="disconnected")
        assert process.communicate(timeout=WITHIN)[1] == "the connection to the room was lost\n"
        assert process.returncode == 75


def test_a_connection_that_is_lost_while_it_leaves_is_a_leave(folder: Path, room: StubRoom) -> None:
    with node(folder, room) as process:
        visitor = joined(room)
        process.terminate()
        assert visitor.does() == {"leave": True}
        visitor.answer(status="disconnected")
        assert process.wait(WITHIN) == 0


@pytest.mark.parametrize("example", ["assistant.mjs", "stream_assistant.mjs"])
def test_both_examples_tell_the_same_refusals_apart(example: str) -> None:
    code = (EXAMPLES / example).read_text(encoding="utf-8")
    lists = {
        name: re.findall(r'"(\w+)"', body) for name, body in re.findall(r"const (\w+) = \[(.*?)\];", code, re.DOTALL)
    }
    assert lists == {"PASSING": sorted(PASSING), "FINAL": sorted(FINAL)}


@pytest.mark.parametrize(("code", "refusals"), [("75", PASSING), ("69", FINAL)])
def test_the_page_lists_the_refusals_of_an_exit_code(code: str, refusals: list[str]) -> None:
    page = (EXAMPLES.parent / "docs" / "assistants.md").read_text(encoding="utf-8")
    table = page.partition("| Error | Exit |\n")[2].partition("\n\n")[0]
    rows = "".join(row for row in table.splitlines() if row.endswith(f"| {code} |"))
    assert sorted(re.findall(r"`(\w+)`", rows)) == sorted(refusals)
