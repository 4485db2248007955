"""The demo's replica scenario: that it passes, and that each of its checks fails when what it checks is not so."""

import asyncio
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from whereby_trigger.cli.demo.checks import AssistantRun, ReplicaResult, check_replicas
from whereby_trigger.cli.demo.meetings import ReplicaMeetings
from whereby_trigger.cli.demo.report import conclude
from whereby_trigger.cli.demo.scenario import ReplicaScenario
from whereby_trigger.cli.demo.store import DemoStore


@dataclass
class DemoRun:
    """Hold one demo_run of the second act, made once for all tests here."""

    meetings: ReplicaMeetings
    result: ReplicaResult
    told: str


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    meetings, folder = ReplicaMeetings(datetime.now(UTC)), tmp_path_factory.mktemp("replicas")
    with redirect_stdout(io.StringIO()) as output:
        result = asyncio.run(ReplicaScenario(folder, DemoStore()).run(meetings))
    return DemoRun(meetings, result, output.getvalue())


def altered(result: ReplicaResult, **fields: Any) -> ReplicaResult:
    return structs.replace(result, **fields)


def edited(result: ReplicaResult, replica: int, change: Callable[[AssistantRun], AssistantRun]) -> ReplicaResult:
    """Change the first run of a replica."""
    (edited, *_) = (run for run in result.runs if run.replica == replica)
    return altered(result, runs=[change(run) if run is edited else run for run in result.runs])


def too_early(result: ReplicaResult) -> ReplicaResult:
    """Start an assistant of the third replica before the one of the drained replica has ended."""
    (first, *_) = (run for run in result.runs if run.replica == result.new_owner)
    (last,) = (run for run in result.runs_in(first.room) if run.attempt == first.attempt - 1)
    before_it_left = result.end_of(last) - 0.001
    return edited(result, result.new_owner, lambda run: structs.replace(run, started=before_it_left))


WRONG: dict[str, Callable[[ReplicaResult], ReplicaResult]] = {
    "Each delivery was answered": lambda result: altered(
        result, sent=[structs.replace(result.sent[0], answer=503), *result.sent[1:]]
    ),
    "A webhook that reached two replicas": lambda result: altered(
        result,
        records=[structs.replace(row, deliveries=1) if row.deliveries == 2 else row for row in result.records],
    ),
    "Each room got one assistant": lambda result: altered(
        result, runs_before=[*result.runs_before, result.runs_before[0]]
    ),
    "One join of each room": lambda result: altered(result, records=result.records[1:]),
    "The other replica took over": lambda result: altered(result, killed_at=result.killed_at - 5),
    "The replica that was told to stop": lambda result: altered(result, exit_code=-9),
    "Its assistants were told why": lambda result: edited(
        result, result.drained, lambda run: structs.replace(run, reason="")
    ),
    "No room ever had two": too_early,
    "When the sessions ended": lambda result: altered(
        result, rooms=[structs.replace(result.rooms[0], reason="it returned"), *result.rooms[1:]]
    ),
}


def test_the_replica_scenario_passes_and_says_so(demo_run: DemoRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(check_replicas(demo_run.meetings, demo_run.result), 1.0) == 0
    assert "All 9 checks passed" in capsys.readouterr().out


def test_the_replica_scenario_tells_each_step_as_it_happens(demo_run: DemoRun) -> None:
    told = demo_run.told
    assert told.index("to replica 2") < told.index("kill -9") < told.index("SIGTERM") < told.index("the session in")


def test_the_replica_scenario_shows_what_rooms_show_says_of_each_room(demo_run: DemoRun) -> None:
    for room in ("/visit-8", "/review"):
        assert f"$ whereby-trigger rooms show acme.whereby.com{room}\n" in demo_run.told
    assert "which had the assistant, died" in demo_run.told


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_fails_when_it_is_not_so(demo_run: DemoRun, sentence: str) -> None:
    result = WRONG[sentence](demo_run.result)
    failed = [check.sentence for check in check_replicas(demo_run.meetings, result) if not check.passed]
    assert len(failed) == 1
    assert failed[0].startswith(sentence)


def test_there_is_a_way_to_fail_each_check(demo_run: DemoRun) -> None:
    assert len(check_replicas(demo_run.meetings, demo_run.result)) == len(WRONG)


def test_a_replica_that_left_its_rooms_alone_fails_the_scenario_with_exit_code_1(
    demo_run: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    result = demo_run.result
    alone = altered(result, runs=[run for run in result.runs if run.replica == result.killed])
    assert conclude(check_replicas(demo_run.meetings, alone), 1.0) == 1
    told = capsys.readouterr().out
    assert f"expected {{'/visit-8': ({result.drained}, 'within 2 s')" in told
    assert "actual   {'/visit-8': None" in told
