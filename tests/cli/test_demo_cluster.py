"""The demo on a PostgreSQL that is killed in mid-meeting passes, and its additional checks can fail."""

import asyncio
import copy
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.demo_cluster import ClusterScenario, delivered, rows, server_of_the_demo
from tests.cli.conftest import Call
from tests.support.postgres import Server, database_of
from whereby_trigger.cli.demo import conclude, empty_store_at, failed
from whereby_trigger.cli.demo.crash import CrashScenario
from whereby_trigger.cli.demo.replicas import ReplicaScenario


@dataclass
class DemoRun:
    """Hold both scenarios on one database, shared by all tests here."""

    server: Server
    url: str
    crash: CrashScenario
    cluster: ClusterScenario
    told: str


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    with server_of_the_demo() as server, redirect_stdout(io.StringIO()) as output:
        url = server.create_database()
        store = asyncio.run(empty_store_at(url))
        crash, cluster = CrashScenario(first, store), ClusterScenario(second, store, database=server)
        asyncio.run(crash.run())
        asyncio.run(cluster.run())
        yield DemoRun(server, url, crash, cluster, output.getvalue())


def test_both_scenarios_pass_on_one_database(demo_run: DemoRun, capsys: pytest.CaptureFixture[str]) -> None:
    for scenario in (demo_run.crash, demo_run.cluster):
        assert conclude(scenario.checks(), 1.0) == 0, capsys.readouterr().out
    assert demo_run.server.password not in demo_run.told + capsys.readouterr().out


def test_the_database_is_killed_and_started_while_a_delivery_waits(demo_run: DemoRun) -> None:
    told = demo_run.told
    assert told.index("kill -9 of the database") < told.index("a latecomer") < told.index("kill -9 of replica")
    assert "database system was not properly shut down; automatic recovery in progress" in demo_run.server.log


WRONG: dict[str, Callable[[ClusterScenario], dict[str, object]]] = {
    "Every assistant stayed in its room": lambda run: {"runs_at_death": run.runs_at_death[1:]},
    "The delivery sent during the outage": lambda run: {"answered_at": run.up_at - 0.001},
    "The other replica took over": lambda run: {"killed_at": run.killed_at - 7},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_that_is_another_on_a_database_fails_when_it_is_not_so(demo_run: DemoRun, sentence: str) -> None:
    altered = copy.copy(demo_run.cluster)
    vars(altered).update(WRONG[sentence](altered))
    (wrong,) = failed(altered.checks())
    assert wrong.startswith(sentence)


def test_what_the_database_says_itself_is_what_was_delivered(demo_run: DemoRun) -> None:
    lines, complaints = rows(demo_run.server, demo_run.url)
    assert complaints == []
    assert sum(int(line.split()[2]) for line in lines[1:]) == delivered()


@pytest.mark.parametrize(
    ("statement", "back", "says"),
    [
        (
            "UPDATE whereby_trigger.rooms SET state = 'failed' WHERE id = 1",
            "UPDATE whereby_trigger.rooms SET state = 'ended' WHERE id = 1",
            "1 rooms are not over",
        ),
        (
            "INSERT INTO whereby_trigger.replicas (id, pid, seen_at, expires) VALUES ('left', 1, 0, 0)",
            "DELETE FROM whereby_trigger.replicas",
            "1 replicas hold a lease, and none runs",
        ),
        (
            "INSERT INTO whereby_trigger.webhooks (seq, id, type, body, received_at, queued_at, state) "
            "VALUES (0, 'stray', '', '', 0, 0, 'pending')",
            "DELETE FROM whereby_trigger.webhooks WHERE id = 'stray'",
            f"{delivered() + 1} webhooks are stored, and {delivered()} were delivered",
        ),
    ],
)
def test_what_should_not_be_left_there_is_complained_of(
    demo_run: DemoRun, statement: str, back: str, says: str
) -> None:
    demo_run.server.run(statement, database_of(demo_run.url))
    try:
        assert rows(demo_run.server, demo_run.url)[1] == [says]
    finally:
        demo_run.server.run(back, database_of(demo_run.url))


def test_a_store_that_is_not_empty_is_refused_and_left_alone(demo_run: DemoRun, call: Call) -> None:
    before = rows(demo_run.server, demo_run.url)
    ended = call("demo", "--store", demo_run.url)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is not empty, and the demo counts what it holds: name an empty store" in ended.stderr
    assert demo_run.server.password not in ended.stderr
    assert rows(demo_run.server, demo_run.url) == before


def test_a_store_that_cannot_be_reached_is_said(call: Call) -> None:
    ended = call("demo", "--store", "postgresql://app:hush@127.0.0.1:1/x")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "check that it runs, and that host and port are right" in ended.stderr
    assert "hush" not in ended.stderr


def test_a_file_that_is_named_is_found_from_the_folders_of_the_scenarios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = asyncio.run(empty_store_at("sqlite:///a file.db"))
    assert store == f"sqlite:///{tmp_path}/a%20file.db"
    assert ReplicaScenario(tmp_path, store).takeover_within == 2
