"""`rooms list` and `rooms show`: who is where now, and what happened in a room."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_runs import fill
from tests.support.rooms import ask, bring_to
from tests.support.terminal import run_on_terminal
from whereby_trigger.store import Arrival, Count, RoomState
from whereby_trigger.store.sqlite import SqliteStore

NIGHT = ("--since", "2026-11-20 22:00", "--until", "2026-11-20 22:30")
GAVE_UP = "No assistant in the meeting of 2026-11-20 22:14: it exited with 75 four times, and then gave up."


@pytest.fixture
def filled(call: Call, tmp_path: Path) -> Call:
    asyncio.run(fill(f"sqlite:///{tmp_path}/whereby-trigger.db"))
    return call


@pytest.mark.parametrize(
    "room", ["https://acme.whereby.com/visit-1", "acme.whereby.com/visit-1", "/visit-1", "visit-1"]
)
def test_show_begins_with_the_answer_and_has_a_line_for_each_thing_that_happened(filled: Call, room: str) -> None:
    ended = filled("rooms", "show", room)
    assert ended.returncode == 0, ended.stderr
    head, *meetings = ended.stdout.split("\n\n")
    assert re.fullmatch(
        r"acme\.whereby\.com/visit-1\nNo assistant in the meeting of [-0-9 :]+: it exited with 75 four "
        r"times, and then gave up\.",
        head,
    )
    (meeting,) = meetings
    runs = [line for line in meeting.splitlines() if "attempt" in line or "the assistant" in line]
    assert len(runs) == 8
    assert all(re.match(r"22:14:0\d ", line) for line in runs)
    assert "Ada" not in ended.stdout


def test_show_has_all_of_it_as_json_with_times_in_utc(filled: Call) -> None:
    shown = json.loads(filled("rooms", "show", "visit-1", "--json").stdout)
    assert shown["room"] == "acme.whereby.com/visit-1"
    assert "four times" in shown["answer"]
    runs = [entry for entry in shown["meetings"][0]["entries"] if entry["kind"] == "over"]
    assert [(run["attempt"], run["exit_code"], run["outcome"]) for run in runs] == [
        (attempt, 75, "refused") for attempt in (1, 2, 3, 4)
    ]
    assert all(re.fullmatch(r"2026-11-\d\dT\d\d:14:0\d\.000Z", run[name]) for run in runs for name in ("at", "live_at"))


def test_show_of_a_time_has_nothing_of_another(filled: Call) -> None:
    before = filled("rooms", "show", "visit-1", "--since", "2026-11-19", "--until", "2026-11-20 22:00").stdout
    assert "No assistant: no webhook of this room came from 2026-11-19 00:00 to 2026-11-20 22:00, and n" in before
    assert GAVE_UP in filled("rooms", "show", "visit-1", *NIGHT).stdout


def test_of_a_room_whose_webhooks_came_at_another_time_nobody_is_sent_to_the_dashboard(filled: Call) -> None:
    before = filled("rooms", "show", "visit-1", "--since", "2026-11-19", "--until", "2026-11-20 22:00").stdout
    assert "and none was refused; its newest one came at 2026-11-20 22:14." in before
    unknown = filled("rooms", "show", "nobody-knows-it", "--since", "2026-11-19", "--until", "2026-11-20 22:00").stdout
    assert "Does Whereby's dashboard (Configure, Webhooks) have the URL of this trigger?" in unknown


def test_a_name_that_several_rooms_have_is_refused_with_their_keys(filled: Call) -> None:
    ended = filled("rooms", "show", "visit-2")
    assert ended.returncode == 1
    assert "several rooms are named visit-2: write one of acme.whereby.com/visit-2, other" in ended.stderr


def test_a_url_of_no_room_is_a_wrong_call(filled: Call) -> None:
    assert filled("rooms", "show", "https://example.com/visit-1").returncode == 2


async def be_there(url: str) -> None:
    store = SqliteStore(url)
    await store.open(lambda: None)
    for key, humans in (("acme.whereby.com/full", 2), ("acme.whereby.com/empty", 0)):
        count = Count(key, humans, 1 if humans else 0, 1_790_000_000.0, "session-of-it")
        await store.add(Arrival(key, "room.client.joined", key, b"{}", 1_790_000_000.0, count=count))
    await bring_to(store, RoomState.LIVE, key="acme.whereby.com/full")
    await store.close()


def test_list_has_the_rooms_with_somebody_or_an_assistant(call: Call, tmp_path: Path) -> None:
    asyncio.run(be_there(f"sqlite:///{tmp_path}/whereby-trigger.db"))
    ended = call("rooms", "list")
    assert ended.returncode == 0, ended.stderr
    header, row = ended.stdout.splitlines()
    assert header.split() == ["room", "humans", "bots", "since", "session", "assistant"]
    assert re.fullmatch(r"acme\.whereby\.com/full +2 +1 +2026-09-\S+ \S+ +session-of-it +waits: given back .*", row)
    fields = json.loads(call("rooms", "list", "--json").stdout)
    assert (fields["room"], fields["humans"], fields["bots"]) == ("acme.whereby.com/full", 2, 1)
    assert fields["assistant"]["state"] == "waiting"


async def fill_rooms(url: str, count: int) -> None:
    """Ask for an assistant in each of some rooms; then somebody joins, in the one that asked first last of all."""
    store = SqliteStore(url)
    await store.open(lambda: None)
    keys = [f"acme.whereby.com/room-{number}" for number in range(count)]
    for key in keys:
        await ask(store, key=key)
    for key in reversed(keys):
        at = time.time()
        await store.add(Arrival(key, "room.client.joined", key, b"{}", at, count=Count(key, 1, 0, at, None)))
    await store.close()


def test_list_names_the_assistant_of_each_room_however_many_have_one(call: Call, tmp_path: Path) -> None:
    asyncio.run(fill_rooms(f"sqlite:///{tmp_path}/whereby-trigger.db", 4))
    rooms = [json.loads(line) for line in call("rooms", "list", "--limit", "2", "--json").stdout.splitlines()]
    assert len(rooms) == 2
    assert [room["room"] for room in rooms if room["assistant"] is None] == []


def test_list_of_nothing_says_so(filled: Call, call: Call, tmp_path: Path) -> None:
    assert call("db", "migrate", "--store", f"sqlite:///{tmp_path}/new.db").returncode == 0
    ended = call("rooms", "list", "--store", f"sqlite:///{tmp_path}/new.db")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "Nobody is in any room" in ended.stderr


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, columns: int) -> None:
    asyncio.run(fill(f"sqlite:///{tmp_path}/whereby-trigger.db"))
    shown = run_on_terminal("rooms", "show", "visit-1", cwd=tmp_path, columns=columns)
    assert "four times" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= columns
