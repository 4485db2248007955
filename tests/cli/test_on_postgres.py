"""The command line on a PostgreSQL store: replicas that share it, and commands run beside them."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call
from tests.support.postgres import Server, database_of
from tests.support.process import Process, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.until import until
from tests.support.whereby import deliver
from whereby_trigger.store.postgres import opening
from whereby_trigger.testing import webhook

REPLICAS = 3
ROOM = "acme.whereby.com/visit-1"
ASSISTS = f"""{HUMANS_JOIN}

@trigger.assistant
async def scribe(session):
    print("scribe in", session.room_name, flush=True)
    print("scribe leaves:", await session.ended, flush=True)
"""


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.create_database()


@pytest.fixture
def replicas(tmp_path: Path, url: str) -> Iterator[list[Process]]:
    """Start replicas together on an empty database; at the end, check that none has printed the password."""
    write(tmp_path, ASSISTS)
    program = whereby_trigger("start", "--port", "0", "--secret", "s", "--store", url, "--drain-timeout", "0")
    with ExitStack() as stack:
        started = [stack.enter_context(Process(program, cwd=tmp_path)) for _ in range(REPLICAS)]
        yield started
        for replica in started:
            assert replica.stop() == 0
            assert password_of(url) not in replica.output


def password_of(url: str) -> str:
    return url.partition("//")[2].partition("@")[0].partition(":")[2]


def shown(url: str) -> str:
    """Return a URL as people see it, without its password."""
    return url.replace(f":{password_of(url)}@", "@")


def listed(*command: str, folder: Path) -> list[dict[str, Any]]:
    """Call the command line beside the replicas, with --json, and parse its lines."""
    ended = run(*command, "--json", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def join(replica: Process, id: str, room: str = "/visit-1") -> None:
    url = f"http://127.0.0.1:{replica.port()}/"
    assert deliver(url, webhook("room.client.joined", id=id, room=room), "s").status == 200


def test_replicas_that_start_at_once_on_an_empty_database_all_say_where_it_is_and_serve(
    replicas: list[Process], url: str, tmp_path: Path
) -> None:
    for number, replica in enumerate(replicas):
        join(replica, f"join-{number}", f"/visit-{number}")
        assert f", store {shown(url)}, " in replica.output
    until(lambda: [row["state"] for row in listed("events", "list", "--store", url, folder=tmp_path)] == ["fired"] * 3)


def test_what_any_replica_decided_is_listed_shown_and_replayed_from_beside_it(
    replicas: list[Process], url: str, tmp_path: Path
) -> None:
    join(replicas[0], "one")
    replicas[0].line("joining https://acme.whereby.com/visit-1")
    (event,) = until(lambda: listed("events", "list", "--state", "fired", "--store", url, folder=tmp_path))
    assert (event["id"], event["room"], event["attempts"]) == ("one", ROOM, 1)
    (full,) = listed("events", "show", "one", "--store", url, folder=tmp_path)
    assert json.loads(full["body"])["id"] == "one"
    assert listed("events", "replay", "--yes", "--state", "fired", "--store", url, folder=tmp_path) == [{"id": "one"}]
    until(lambda: sum(replica.output.count("joining") for replica in replicas) == 2)


def test_an_assistant_is_stopped_and_another_started_from_beside_whichever_replica_has_it(
    replicas: list[Process], url: str, tmp_path: Path
) -> None:
    join(replicas[0], "one")
    # Another replica may look at the store first and take the room.
    (has_it,) = until(lambda: [one for one in replicas if "scribe in /visit-1" in one.output])
    # It runs before the store knows: until then the room is starting.
    until(lambda: listed("assistants", "list", "--store", url, folder=tmp_path)[0]["state"] == "live")
    stopped = run("assistants", "stop", f"https://{ROOM}", "--store", url, cwd=tmp_path)
    assert stopped.stdout == f"{ROOM} was live: its assistant has been asked to leave within stop_grace\n"
    has_it.line("scribe leaves: stopped by whereby-trigger assistants stop")
    until(lambda: listed("assistants", "list", "--store", url, folder=tmp_path)[0]["state"] == "ended")
    assert run("assistants", "start", f"https://{ROOM}", "--store", url, cwd=tmp_path).returncode == 0
    until(lambda: sum(replica.output.count("scribe in /visit-1") for replica in replicas) == 2)


@pytest.mark.parametrize("reload", ["--reload", "--no-reload"])
def test_dev_serves_on_it(url: str, tmp_path: Path, reload: str) -> None:
    write(tmp_path, HUMANS_JOIN)
    with Process(whereby_trigger("dev", reload, "--port", "0", "--store", url), cwd=tmp_path) as process:
        joined = webhook("room.client.joined")
        assert deliver(f"http://127.0.0.1:{process.port()}/", joined, secret=None).status == 200
        assert json.loads(process.line(joined.id))["decision"] == "fired"
        assert process.stop() == 0
        assert password_of(url) not in process.output


def test_migrate_makes_the_store_once_and_prune_forgets(call: Call, url: str) -> None:
    numbers = ", ".join(map(str, sorted(opening.scripts())))
    assert call("db", "migrate", "--store", url).stdout == f"{shown(url)}: applied migrations {numbers}\n"
    assert call("db", "migrate", "--store", url).stdout == f"{shown(url)}: nothing to do, the schema is up to date\n"
    assert "deleted 0 webhooks received before 20" in call("db", "prune", "--yes", "--store", url).stdout


def test_listing_creates_nothing(call: Call, url: str, postgres: Server) -> None:
    ended = call("events", "list", "--store", url)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"Error: there is no store at {shown(url)}: start the trigger once, or name another\n"
    assert postgres.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'whereby_trigger'", database_of(url)) == "0"


def test_check_says_of_the_database_how_it_is_from_all_sides(call: Call, url: str, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    call("db", "migrate", "--store", url)
    ended = call("check", "--port", "0", "--store", url)
    assert ended.returncode == 0
    assert ended.stderr == ""
    lines = dict(line.split(maxsplit=1)[1].split("  ", 1) for line in ended.stdout.splitlines() if "store" in line)
    assert [name.strip() for name in lines] == [
        *("store", "store version", "store durability", "store writes", "store privileges", "store clock"),
        "store schema",
    ]
    assert lines["store"].strip() == f"{shown(url)} answers"
    assert lines["store schema"].strip() == f"{opening.SCHEMA}, and takes writes"


def test_check_marks_each_problem_and_exits_1(call: Call, url: str, postgres: Server, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    postgres.run(f"ALTER DATABASE {database_of(url)} SET synchronous_commit = off")
    ended = call("check", "--port", "0", "--store", url)
    assert ended.returncode == 1
    (problem,) = (line for line in ended.stdout.splitlines() if line.startswith("problem"))
    assert "store durability" in problem
    assert "synchronous_commit = on, and see that no URL option sets it" in problem


def test_check_warns_of_a_clock_that_is_off_and_exits_0(
    call: Call, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, HUMANS_JOIN)
    monkeypatch.setattr("whereby_trigger.store.postgres.opening.time.time", lambda: time.time_ns() / 1e9 + 60)
    ended = call("check", "--port", "0", "--json", "--store", url)
    rows = {row["check"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert ended.returncode == 0
    assert rows["store clock"]["verdict"] == "warning"
    assert "this machine's clock is 60 s ahead of the database's" in rows["store clock"]["detail"]
