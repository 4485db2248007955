"""`backtest`: a program's predicates are asked about what is stored, and different decisions are shown."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.arrivals import decision
from tests.support.programs import HUMANS_JOIN, write
from tests.support.stores import KINDS
from tests.support.terminal import run_on_terminal
from whereby_trigger import Webhook
from whereby_trigger.receive import Accepted, Rules, intake
from whereby_trigger.store import Query, State, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook

JOINED = "room.client.joined"
ONLY_HOSTS = """
from whereby_trigger import Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
def a_host(webhook):
    print("asked about", webhook.id)
    return webhook.data.role_name == "host"
"""
TWO_PEOPLE = """
from whereby_trigger import Trigger

trigger = Trigger()


@trigger.when("room.client.joined", hold=30)
def two_people(webhook, presence):
    return presence.humans is not None and presence.humans >= 2
"""
STARTS_ONE = """
import asyncio

from whereby_trigger import Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
def starts(webhook):
    asyncio.run(trigger.start_assistant("https://acme.whereby.com/visit-1"))
    return True
"""
RAISES_WITH_NAMES = """
from whereby_trigger import Trigger

trigger = Trigger()


@trigger.when("room.client.joined")
def raising(webhook):
    raise ValueError(webhook.data.display_name)
"""
NO_PREDICATE = "from whereby_trigger import Trigger\n\ntrigger = Trigger()\n"


async def fill(store: Store, now: float) -> None:
    """Store webhooks decided by a program that lets visitors in, all but the first in the last hour."""
    await store.open(lambda: None)
    for number, (ago, role, state, type) in enumerate(
        [
            (8 * 86_400, "visitor", State.FIRED, JOINED),
            (3600, "visitor", State.FIRED, JOINED),
            (3000, "host", State.FIRED, JOINED),
            (2400, "visitor", State.FIRED, JOINED),
            (1800, "recorder", State.SKIPPED, JOINED),
            (1200, "visitor", State.UNHANDLED, "room.client.left"),
        ]
    ):
        at = now - ago
        created_at = datetime.fromtimestamp(at, UTC)
        room = f"/visit-{number % 2}"
        fields: dict[str, Any] = {
            "id": f"a{number}",
            "room": room,
            "role_name": role,
            "created_at": created_at,
            "num_clients": 1,
        }
        sent: Webhook = webhook(type, **fields)
        verdict = intake((), sent.raw, at, Rules(allow_unsigned=True))
        assert isinstance(verdict, Accepted)
        added = await store.add(verdict.arrival)
        reason = "predicate people returned True"
        assert await store.decide(decision(added.seq, sent.id, state, reason=reason, decided_at=at))
    await store.close()


@pytest.fixture(params=list(KINDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a filled store of every kind."""
    folder = tmp_path / "store"
    folder.mkdir()
    with KINDS[request.param](folder) as place:
        asyncio.run(fill(store_for(place.url), time.time()))
        yield place.url


@pytest.fixture
def file(tmp_path: Path) -> str:
    asyncio.run(fill(store_for(f"sqlite:///{tmp_path}/whereby-trigger.db"), time.time()))
    return f"sqlite:///{tmp_path}/whereby-trigger.db"


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_same_program_would_decide_all_as_it_was(call: Call, tmp_path: Path, url: str) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = call("backtest", "--store", url, "--fail-on-difference")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == "4 webhooks asked, 0 would be decided otherwise."


def test_each_difference_is_one_json_object_a_line_and_the_summary_is_the_last(
    call: Call, tmp_path: Path, url: str
) -> None:
    write(tmp_path, ONLY_HOSTS)
    ended = call("backtest", "--store", url, "--json")
    assert ended.returncode == 0
    first, second, summary = objects(ended.stdout)
    assert {name: value for name, value in first.items() if name != "received_at"} == {
        "id": "a1",
        "type": JOINED,
        "room": "acme.whereby.com/visit-1",
        "was": "fired",
        "would_be": "skipped",
        "was_reason": "predicate people returned True",
        "reason": "predicate a_host returned False",
        "error": None,
    }
    assert second["id"] == "a3"
    assert summary == {
        "summary": {
            "asked": 4,
            "different": 2,
            "was": {"fired": 3, "skipped": 1},
            "would_be": {"fired": 1, "skipped": 3},
            "changes": [{"was": "fired", "would_be": "skipped", "webhooks": 2}],
            "not_asked": {"no predicate for its type, then or now": 1},
        }
    }
    assert "asked about a1" in ended.stderr, "what a predicate prints does not come between the lines"


@pytest.mark.parametrize("output", [[], ["--json"]], ids=["table", "json"])
def test_what_a_predicate_raised_is_told_by_its_type_and_place_without_its_text(
    call: Call, tmp_path: Path, file: str, output: list[str]
) -> None:
    program = write(tmp_path, RAISES_WITH_NAMES)
    ended = call("backtest", "--since", "2h", *output)
    assert (ended.returncode, ended.stdout.count("raised ValueError, 3 times")) == (0, 4)
    assert "Robin" not in ended.stdout + ended.stderr
    if output:
        (error,) = {found["error"] for found in objects(ended.stdout)[:-1]}
        assert error == f"predicate raising: ValueError (at {program}:8)"


def test_a_person_reads_what_would_be_otherwise_and_why(call: Call, tmp_path: Path, file: str) -> None:
    write(tmp_path, ONLY_HOSTS)
    ended = call("backtest", "app.py", "--since", "2h")
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["received", "id", "type", "room", "change"]
    assert lines[1].endswith("fired → would skip: predicate a_host returned False")
    assert " a1 " in lines[1]
    assert "fired → skipped  2" in lines
    assert ["skipped", "1", "3"] in [line.split() for line in lines]
    assert any(
        line.split() == ["1", *["no", "predicate", "for", "its", "type,", "then", "or", "now"]] for line in lines
    )
    assert lines[-1] == "4 webhooks asked, 2 would be decided otherwise."


def test_a_limit_bounds_what_is_shown_and_not_what_is_counted(call: Call, tmp_path: Path, file: str) -> None:
    write(tmp_path, ONLY_HOSTS)
    ended = call("backtest", "--limit", "1")
    assert "4 webhooks asked, 2 would be decided otherwise." in ended.stdout
    assert " a1 " in ended.stdout
    assert " a3 " not in ended.stdout
    assert "The first 1 of 2 differences is shown: --limit 2 shows all." in ended.stderr
    as_json = objects(call("backtest", "--limit", "1", "--json").stdout)
    assert [fields.get("id") for fields in as_json] == ["a1", None]


def test_a_difference_fails_the_command_if_that_is_asked_for(call: Call, tmp_path: Path, file: str) -> None:
    write(tmp_path, ONLY_HOSTS)
    assert call("backtest", "--fail-on-difference").returncode == 1
    assert call("backtest", "--fail-on-difference", "--room", "/visit-0").returncode == 0


def test_older_webhooks_are_asked_if_the_time_says_so_and_those_of_one_room_and_type(
    call: Call, tmp_path: Path, file: str
) -> None:
    write(tmp_path, ONLY_HOSTS)

    def asked(*options: str) -> int:
        return int(objects(call("backtest", "--json", *options).stdout)[-1]["summary"]["asked"])

    assert asked() == 4
    assert asked("--since", "30d") == 5
    assert asked("--since", "30d", "--until", "7d") == 1
    assert asked("--room", "https://acme.whereby.com/visit-1") == 2
    assert asked("--type", "room.client.left") == 0


def test_a_hold_and_who_was_there_are_taken_from_what_is_stored(call: Call, tmp_path: Path, file: str) -> None:
    write(tmp_path, TWO_PEOPLE)
    ended = call("backtest", "--json")
    *differences, summary = objects(ended.stdout)
    assert [(one["id"], one["would_be"]) for one in differences] == [(f"a{n}", "skipped") for n in (1, 2, 3)]
    assert summary["summary"]["different"] == 3


def test_a_predicate_that_starts_an_assistant_is_stopped_and_nothing_is_written(
    call: Call, tmp_path: Path, url: str
) -> None:
    program = write(tmp_path, STARTS_ONE)

    async def content() -> tuple[Any, Any]:
        store = store_for(url)
        await store.open_readonly()
        found = await store.find(Query()), await store.rooms()
        await store.close()
        return found

    before = asyncio.run(content())
    ended = call("backtest", "--store", url)
    assert ended.returncode == 2
    assert ended.stdout == ""
    line = STARTS_ONE.lstrip().partition("trigger.start_assistant")[0].count("\n") + 1
    assert f"trigger.start_assistant() was called at {program}:{line}" in ended.stderr
    assert "do it in a listener" in ended.stderr
    assert asyncio.run(content()) == before


def test_a_program_without_a_predicate_has_nothing_to_be_asked(call: Call, tmp_path: Path, file: str) -> None:
    write(tmp_path, NO_PREDICATE)
    ended = call("backtest")
    assert ended.returncode == 2
    assert "app.py has no predicate to ask: add @trigger.when(TYPE)" in ended.stderr


def test_a_missing_store_is_not_created(call: Call, tmp_path: Path) -> None:
    write(tmp_path, ONLY_HOSTS)
    ended = call("backtest")
    assert ended.returncode == 2
    assert "there is no store at" in ended.stderr
    assert not (tmp_path / "whereby-trigger.db").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "soon"), "--since soon is no time"),
        (("--since", "1h", "--until", "2h"), "--until 2h is not after --since 1h"),
        (("--type", "room.client.join"), "did you mean 'room.client.joined'?"),
        (("--limit", "0"), "--limit"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    call: Call, tmp_path: Path, file: str, options: tuple[str, ...], said: str
) -> None:
    write(tmp_path, ONLY_HOSTS)
    ended = call("backtest", *options)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_a_terminal_of_80_columns_shows_the_reason_whole(tmp_path: Path, file: str) -> None:
    write(tmp_path, ONLY_HOSTS)
    shown = run_on_terminal("backtest", cwd=tmp_path, columns=80)
    assert "would skip" in shown
    assert "4 webhooks asked, 2 would be decided otherwise." in shown
