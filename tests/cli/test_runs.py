"""The runs of an assistant: in `assistants show` and `list`, and from the webhook that requested it."""

import asyncio
import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.arrivals import arrival, decision
from tests.support.rooms import ask, bring_to, move, session, take_one
from whereby_trigger.store import RoomMove, RoomState, RunOutcome, RunReport
from whereby_trigger.store.sqlite import SqliteStore

WAITING, STARTING, LIVE, ENDING, ENDED, FAILED = RoomState
ROOM = "acme.whereby.com/visit-1"
URL = f"https://{ROOM}"
START = time.mktime(time.strptime("2026-11-20 22:14", "%Y-%m-%d %H:%M"))
AGAIN = "exited with 75: worth another try"


class Wall:
    """A clock that shows the time that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


async def fill(url: str) -> None:
    """Store assistants: one failed four times, one left, one was handed over, one waits, and one never started."""
    wall = Wall()
    store = SqliteStore(url, wall=wall)
    await store.open(lambda: None)
    added = await store.add(arrival("w1", received_at=START))
    await ask(store, webhook="w1")
    await store.decide(decision(added.seq, "w1", reason="predicate people returned True; an assistant starts"))
    for attempt in range(1, 5):
        room = await take_one(store)
        wall.now += 1
        await move(store, room, LIVE)
        wall.now += 1
        report = RunReport(RunOutcome.REFUSED, exit_code=75, output=f"no key {attempt}\nsaid Ada")
        state, reason = (WAITING, f"{AGAIN}: restart {attempt} of 3") if attempt < 4 else (FAILED, f"{AGAIN}, after 3")
        await store.move(RoomMove(room.id, state, reason, run=report))
    wall.now = START + 3600
    await bring_to(store, ENDED, key="acme.whereby.com/visit-2")
    await bring_to(store, LIVE, key="other.whereby.com/visit-2")
    await ask(store, "acme.whereby.com/idle", session_id="s")
    await session(store, "end", key="acme.whereby.com/idle", session_id="s")
    await ask(store, "acme.whereby.com/waits")
    await store.close()


@pytest.fixture
def filled(call: Call, tmp_path: Path) -> Call:
    asyncio.run(fill(f"sqlite:///{tmp_path}/whereby-trigger.db"))
    return call


def shown(call: Call, *arguments: str) -> Any:
    ended = call(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def listed(call: Call, *options: str) -> list[int]:
    ended = call("assistants", "list", "--json", *options)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line)["id"] for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    "room", [URL, f"{URL}?roomKey=x", ROOM, "ACME.whereby.com/visit-1", "/visit-1", "visit-1", "1"]
)
def test_show_has_every_run_with_its_times_exit_code_reason_and_last_lines(filled: Call, room: str) -> None:
    ended = filled("assistants", "show", room)
    assert ended.returncode == 0, ended.stderr
    head, *runs = ended.stdout.split("\n\n")
    assert "state       failed\n" in head
    assert f"reason      {AGAIN}, after 3\n" in head
    assert len(runs) == 4
    for attempt, run in zip((4, 3, 2, 1), runs, strict=True):
        first, told, *output = run.strip("\n").split("\n")
        pattern = (
            rf"run {attempt}, attempt {attempt}, started 2026-11-20 22:14:0\d\S+, live 22:14:0\d, over 22:14:0\d: "
        )
        assert re.match(pattern + AGAIN, first), first
        assert re.fullmatch(r"  replica [0-9a-f]{32}, exit code 75", told)
        assert output == [f"  | no key {attempt}", "  | said Ada"]


def test_show_has_all_of_it_as_json(filled: Call) -> None:
    fields = shown(filled, "assistants", "show", "visit-1")
    assert (fields["id"], fields["state"], fields["restarts"], fields["webhook"]) == (1, "failed", 0, "w1")
    assert [run["attempt"] for run in fields["runs"]] == [4, 3, 2, 1]
    last = fields["runs"][0]
    assert all(
        re.fullmatch(r"2026-11-\d\dT\d\d:14:0\d\.000Z", last[name]) for name in ("started_at", "live_at", "ended_at")
    )
    assert {name: last[name] for name in ("outcome", "reason", "exit_code", "signal", "exception", "output")} == {
        "outcome": "refused",
        "reason": f"{AGAIN}, after 3",
        "exit_code": 75,
        "signal": None,
        "exception": None,
        "output": "no key 4\nsaid Ada",
    }


def test_show_names_the_rooms_earlier_entries(filled: Call) -> None:
    filled("assistants", "start", URL)
    newest = filled("assistants", "show", URL).stdout
    assert "state       waiting\n" in newest
    assert "earlier     1: see `assistants show ID`\n" in newest
    assert "state       failed\n" in filled("assistants", "show", "1").stdout


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], [5, 4, 3, 2, 1]),
        (["--room", "visit-2"], [3, 2]),
        (["--room", "acme.whereby.com/visit-2"], [2]),
        (["--room", "https://other.whereby.com/visit-2"], [3]),
        (["--room", "visit-2", "--state", "ended"], [2]),
        (["--since", "2026-11-20 22:00", "--until", "23:00"], [1]),
        (["--since", "2026-11-20 22:15"], [5, 4, 3, 2]),
        (["--since", "2026-11-20 22:15", "--limit", "1"], [5, 3]),
        (["--until", "2026-11-20 22:14"], []),
    ],
)
def test_the_list_is_narrowed_by_room_state_and_time(filled: Call, options: list[str], found: list[int]) -> None:
    assert listed(filled, *options) == found


def test_the_list_says_in_words_what_has_become_of_each(filled: Call) -> None:
    rows = [re.split(r" {2,}", line) for line in filled("assistants", "list").stdout.splitlines()[1:]]
    assert [(id, room, state, reason) for id, _, room, state, _, _, _, reason in map(padded, rows)] == [
        ("5", "acme.whereby.com/waits", "waiting", ""),
        ("4", "acme.whereby.com/idle", "ended", "the session has ended"),
        ("3", "other.whereby.com/visit-2", "waiting", "given back by a replica that stopped"),
        ("2", "acme.whereby.com/visit-2", "ended", "as the test wants it"),
        ("1", ROOM, "failed", f"{AGAIN}, after 3"),
    ]


def padded(row: list[str]) -> list[str]:
    return [*row, ""][:8]


def test_a_run_that_goes_on_says_so_and_one_whose_end_nobody_recorded_too(filled: Call, tmp_path: Path) -> None:
    path = tmp_path / "whereby-trigger.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET ended_at = NULL, outcome = NULL WHERE entry = 2")
        connection.execute("UPDATE runs SET ended_at = NULL, outcome = NULL, replica = 'r' WHERE entry = 3")
        connection.execute("UPDATE rooms SET state = 'live', owner = 'r' WHERE id = 3")
    assert re.search(r"^run 5, .*: its end was not recorded$", filled("assistants", "show", "2").stdout, re.MULTILINE)
    assert re.search(r"^run 6, .*: is not over$", filled("assistants", "show", "3").stdout, re.MULTILINE)


def test_an_assistant_that_failed_four_times_is_no_longer_just_one_that_starts(filled: Call) -> None:
    (row,) = [line for line in filled("events", "list").stdout.splitlines() if " w1 " in line]
    assert row.endswith(f"returned True; an assistant starts; it failed: {AGAIN}, after 3")
    (fields,) = [
        fields
        for fields in map(json.loads, filled("events", "list", "--json").stdout.splitlines())
        if fields["id"] == "w1"
    ]
    assert fields["assistant"] == {
        "id": 1,
        "state": "failed",
        "attempt": 4,
        "reason": f"{AGAIN}, after 3",
        "webhook": "w1",
    }


def test_a_success_leads_to_its_runs_and_back(filled: Call) -> None:
    head = filled("events", "show", "w1").stdout.partition("\n\n")[0]
    entry, *runs = head.partition("assistant   ")[2].splitlines()
    assert entry == f"entry 1 failed: {AGAIN}, after 3"
    assert [run.split(",")[0].strip() for run in runs] == ["run 4", "run 3", "run 2", "run 1"]
    assert all(f": {AGAIN}" in run for run in runs)
    assert "Ada" not in head
    fields = shown(filled, "events", "show", "w1")
    assert [run["id"] for run in fields["assistants"][0]["runs"]] == [4, 3, 2, 1]
    assert shown(filled, "assistants", "show", str(fields["assistants"][0]["id"]))["webhook"] == "w1"


def test_a_success_that_found_an_assistant_in_its_room_leads_to_that_one(filled: Call, tmp_path: Path) -> None:
    asyncio.run(fire_again(f"sqlite:///{tmp_path}/whereby-trigger.db"))
    shown_entry = filled("events", "show", "w2").stdout.partition("assistant   ")[2].splitlines()[0]
    assert shown_entry == f"entry 1 failed: {AGAIN}, after 3; asked for by w1"
    assert [one["webhook"] for one in shown(filled, "events", "show", "w2")["assistants"]] == ["w1"]
    assert shown(filled, "events", "show", "w3")["assistants"] == []


async def fire_again(url: str) -> None:
    """Store a webhook that fired while its room had an assistant, and one that fired long before."""
    store = SqliteStore(url)
    await store.open(lambda: None)
    for id, decided_at in (("w2", START + 3), ("w3", START - 3)):
        added = await store.add(arrival(id, received_at=START))
        await store.decide(decision(added.seq, id, reason="room has an assistant, on replica r", decided_at=decided_at))
    await store.close()


def test_nothing_that_an_assistant_wrote_is_in_a_list(filled: Call) -> None:
    for command in ("assistants", "events"):
        for options in ([], ["--json"]):
            assert "Ada" not in filled(command, "list", *options).stdout


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_a_name_means_the_one_room_that_has_it(filled: Call, verb: str) -> None:
    assert filled("assistants", verb, "waits").stdout.startswith("acme.whereby.com/waits ")
    several = filled("assistants", verb, "/visit-2")
    assert several.returncode == 1
    assert "write one of acme.whereby.com/visit-2, other.whereby.com/visit-2" in several.stderr
    nobody = filled("assistants", verb, "nobody")
    assert nobody.returncode == 1
    assert "no room named nobody has asked for an assistant yet: write its URL" in nobody.stderr
    env = {"WHEREBY_TRIGGER_SUBDOMAIN": "acme"}
    assert filled("assistants", verb, "nobody", env=env).stdout.startswith("acme.whereby.com/nobody ") is (
        verb == "start"
    )


@pytest.mark.parametrize("command", ["assistants", "events"])
def test_a_time_that_is_none_is_a_wrong_call(call: Call, command: str, tmp_path: Path) -> None:
    ended = call(command, "list", "--since", "yesterday")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--since yesterday is no time: write 22:14" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--since", "2026-11-20 22:14", "--until", "22:15"], {"w1"}),
        (["--until", "2026-11-20 22:14"], set()),
        (["--since", "2026-11-20 22:15"], {"end"}),
        (["--since", "2026-11-20 22:15", "--type", "room.client.joined"], set()),
    ],
)
def test_the_list_of_webhooks_is_narrowed_by_time(filled: Call, options: list[str], found: set[str]) -> None:
    ended = filled("events", "list", "--json", *options)
    assert {json.loads(line)["id"] for line in ended.stdout.splitlines()} == found
