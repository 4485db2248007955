"""The nights that docs/operating.md walks through, each with the real program: its output is what the page shows."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.support.markdown import Page
from tests.support.process import Process, run, whereby_trigger
from tests.support.until import until
from tests.support.whereby import SECRET, deliver, post
from whereby_trigger.testing import webhook

OPERATING = Page(Path(__file__).parents[1] / "docs" / "operating.md")
SESSION = "1b5f8f3c-6f0e-4d8e-9a55-0c9a4f1f2d3e"
ENV = {"WHEREBY_WEBHOOK_SECRET": SECRET, "TZ": "UTC"}
JOINED = webhook("room.client.joined", room_name="/visit-1", subdomain="acme", room_session_id=SESSION)
PEOPLE = """
from whereby_trigger import Trigger, is_human
trigger = Trigger(webhook_triggers={"room.client.joined": is_human})
"""
STAYS = """
@trigger.assistant
async def stays(session):
    await session.ended
"""
RAISES = """
from whereby_trigger import Trigger
trigger = Trigger()
@trigger.when("room.client.joined")
def a_visitor(webhook):
    return {}["visitor"]
"""
EXITS = """
from whereby_trigger.assist import runners
runners.BACKOFF = (0.0, 0.0, 0.0)
trigger.assistant_command(["sh", "-c", "exit 75"])
"""
"""Removes the pauses before its restarts, of 21 s in all."""

REPLACED = {
    r"\d{4}-\d\d-\d\d ": "",
    r"\b\d\d:\d\d(:\d\d)?\b": "TIME",
    r"\breplica [0-9a-f]{8}": "replica ID",
    r"\b[0-9.]+ s\b": "SECONDS",
    r" +": " ",
}


def normalised(text: str) -> list[str]:
    """Return the lines of a text with its times and ids replaced."""
    for pattern, replacement in REPLACED.items():
        text = re.sub(pattern, replacement, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def documented(night: str) -> list[str]:
    """Return what the page shows for a night: the output of the command below its heading."""
    _, found, rest = OPERATING.text.partition(f"\n### {night}\n")
    assert found, f"docs/operating.md has no night {night!r}"
    block = re.search(r"```console\n\$ whereby-trigger rooms show[^\n]*\n(.*?)```", rest, re.DOTALL)
    assert block is not None
    return normalised(block[1])


def shown(folder: Path) -> list[str]:
    ended = run("rooms", "show", "visit-1", "--app", "app.py", cwd=folder, env=ENV)
    assert ended.returncode == 0, ended.stderr
    return normalised(ended.stdout)


class Night:
    """Start a program in a folder, and deliver to it."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        (folder / "app.py").write_text(program)

    def serve(self, *options: str) -> Process:
        return Process(whereby_trigger("start", "app.py", "--port", "0", *options), cwd=self.folder, env=ENV)

    def shows(self, night: str, ready: Callable[[list[str]], bool] = lambda lines: True) -> None:
        """Wait until the expected lines are there, and compare them with the page."""
        until(lambda: ready(shown(self.folder)))
        assert shown(self.folder) == documented(night)


def test_a_wrong_secret_is_shown_as_documented(tmp_path: Path) -> None:
    night = Night(tmp_path, PEOPLE)
    with night.serve() as server:
        port = server.port()
        for _ in range(3):
            assert deliver(f"http://127.0.0.1:{port}/", JOINED, "another secret").status == 401
        assert server.stop() == 0
    night.shows("The secret is wrong")


def test_a_predicate_that_raises_is_shown_as_documented(tmp_path: Path) -> None:
    night = Night(tmp_path, RAISES + STAYS)
    with night.serve() as server:
        assert deliver(f"http://127.0.0.1:{server.port()}/", JOINED).status == 200
        server.line("a_visitor raised KeyError")
        night.shows("A predicate raises", lambda lines: any("failed, " in line for line in lines))


def test_a_room_without_a_slot_is_shown_as_documented(tmp_path: Path) -> None:
    night = Night(tmp_path, PEOPLE.replace("Trigger(", "Trigger(max_rooms=1, ") + STAYS)
    other = webhook("room.client.joined", room_name="/visit-2", subdomain="acme", room_session_id="another")
    with night.serve() as server:
        url = f"http://127.0.0.1:{server.port()}/"
        assert deliver(url, other).status == 200
        server.line("an assistant starts")
        assert deliver(url, JOINED).status == 200
        server.line("no free slot")
        ended = webhook("room.session.ended", room_name="/visit-1", subdomain="acme", room_session_id=SESSION)
        assert deliver(url, ended).status == 200
        server.line("room.session.ended")
        night.shows("No replica has a slot", lambda lines: any("no longer waits" in line for line in lines))


def test_a_program_that_exits_with_75_is_shown_as_documented(tmp_path: Path) -> None:
    night = Night(tmp_path, PEOPLE + EXITS)
    with night.serve() as server:
        assert deliver(f"http://127.0.0.1:{server.port()}/", JOINED).status == 200
        server.line("after 3 restarts", within=60)
        night.shows("The program exits with 75", lambda lines: "four times" in lines[1])


def test_a_trigger_to_which_nothing_was_sent_is_shown_as_documented(tmp_path: Path) -> None:
    night = Night(tmp_path, PEOPLE)
    with night.serve() as server:
        server.port()
        night.shows("Nobody has pointed Whereby at it")


def test_a_wrong_path_is_shown_as_documented(tmp_path: Path) -> None:
    night = Night(tmp_path, PEOPLE)
    with night.serve() as server:
        assert post(f"http://127.0.0.1:{server.port()}/webhooks", JOINED.raw, {}).status == 404
        assert server.stop() == 0
    night.shows("Whereby is pointed at another path")
