"""The demo on a PostgreSQL that is killed in mid-meeting: that it passes, and that what it adds can fail."""

import asyncio
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from scripts.demo_cluster import delivered, rows, server_of_the_demo
from tests.cli.conftest import Call
from tests.support.postgres import Server, database_of
from whereby_trigger.cli.demo import replicas
from whereby_trigger.cli.demo.crowd import Crowd
from whereby_trigger.cli.demo.findings import Found
from whereby_trigger.cli.demo.meeting import Meeting
from whereby_trigger.cli.demo.play import Stage, conclude
from whereby_trigger.cli.demo.presence import Observed, checks
from whereby_trigger.cli.demo.replicas import Replicas
from whereby_trigger.cli.demo.show import Show
from whereby_trigger.cli.demo.venue import Venue, venue_at


@dataclass
class Performance:
    """Hold both acts on one database, made once for all tests here."""

    server: Server
    url: str
    meeting: Meeting
    found: Found
    crowd: Crowd
    observed: Observed
    output: io.StringIO
    show: Show


@pytest.fixture(scope="module")
def performance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Performance]:
    meeting, crowd, output = Meeting(datetime.now(UTC)), Crowd(datetime.now(UTC)), io.StringIO()
    show = Show(Console(file=output))
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    with server_of_the_demo() as server:
        url = server.create_database()
        venue = asyncio.run(venue_at(url, server))
        found = asyncio.run(Stage(first, show, venue).perform(meeting))
        observed = asyncio.run(Replicas(second, show, venue).perform(crowd))
        yield Performance(server, url, meeting, found, crowd, observed, output, show)


def test_both_acts_pass_on_one_database(performance: Performance) -> None:
    show, output = performance.show, performance.output
    assert conclude(show, performance.meeting, performance.found, 1.0) == 0, output.getvalue()
    assert replicas.conclude(show, performance.crowd, performance.observed, 1.0) == 0, output.getvalue()
    assert performance.server.password not in performance.output.getvalue()


def test_the_database_is_killed_and_started_while_a_delivery_waits(performance: Performance) -> None:
    told = performance.output.getvalue()
    assert told.index("kill -9 of the database") < told.index("a latecomer") < told.index("kill -9 of replica")
    assert "database system was not properly shut down; automatic recovery in progress" in performance.server.log


WRONG: dict[str, Callable[[Observed, Any], Observed]] = {
    "While the database was dead": lambda observed, outage: structs.replace(
        observed, outage=structs.replace(outage, stays=outage.stays[1:])
    ),
    "What was delivered meanwhile": lambda observed, outage: structs.replace(
        observed, outage=structs.replace(outage, answered_at=outage.up_at - 0.001)
    ),
    "What the killed replica had": lambda observed, _: structs.replace(observed, killed_at=observed.killed_at - 7),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_that_is_another_on_a_database_fails_when_it_is_not_so(
    performance: Performance, sentence: str
) -> None:
    observed = WRONG[sentence](performance.observed, performance.observed.outage)
    failed = [check.sentence for check in checks(performance.crowd, observed) if not check.passed]
    assert [text for text in failed if text.startswith(sentence)] == failed != []


def test_what_the_database_says_itself_is_what_was_delivered(performance: Performance) -> None:
    lines, complaints = rows(performance.server, performance.url)
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
    performance: Performance, statement: str, back: str, says: str
) -> None:
    performance.server.run(statement, database_of(performance.url))
    try:
        assert rows(performance.server, performance.url)[1] == [says]
    finally:
        performance.server.run(back, database_of(performance.url))


def test_a_store_that_is_not_empty_is_refused_and_left_alone(performance: Performance, call: Call) -> None:
    before = rows(performance.server, performance.url)
    ended = call("demo", "--store", performance.url)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "is not empty, and the demo counts what is in it: name one of its own" in ended.stderr
    assert performance.server.password not in ended.stderr
    assert rows(performance.server, performance.url) == before


def test_a_store_that_cannot_be_reached_is_said(call: Call) -> None:
    ended = call("demo", "--store", "postgresql://app:hush@127.0.0.1:1/x")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "see that it runs, and that host and port are right" in ended.stderr
    assert "hush" not in ended.stderr


def test_a_file_that_is_named_is_found_from_the_folders_of_the_acts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    venue = asyncio.run(venue_at("sqlite:///a file.db"))
    assert venue == Venue(f"sqlite:///{tmp_path}/a%20file.db")
    assert (venue.settings, venue.takeover_within) == ({}, 2)
