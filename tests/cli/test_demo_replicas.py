"""The demo's replica scenario passes, and each of its checks fails if its condition does not hold."""

import asyncio
import copy
import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import structs

from whereby_trigger.cli.demo import conclude, failed
from whereby_trigger.cli.demo.replicas import NEW_OWNER, ReplicaScenario


@dataclass
class DemoRun:
    """Hold one run of the second scenario, shared by all tests here."""

    scenario: ReplicaScenario
    told: str


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    scenario = ReplicaScenario(tmp_path_factory.mktemp("replicas"))
    with redirect_stdout(io.StringIO()) as output:
        asyncio.run(scenario.run())
    return DemoRun(scenario, output.getvalue())


def altered(scenario: ReplicaScenario, **observed: Any) -> ReplicaScenario:
    """Return the scenario as if something else had been observed."""
    other = copy.copy(scenario)
    vars(other).update(observed)
    return other


def edited(scenario: ReplicaScenario, replica: int, **fields: Any) -> ReplicaScenario:
    """Change the first run of a replica."""
    (first, *_) = (run for run in scenario.runs if run.replica == replica)
    runs = [structs.replace(run, **fields) if run is first else run for run in scenario.runs]
    return altered(scenario, runs=runs)


def too_early(scenario: ReplicaScenario) -> ReplicaScenario:
    """Start an assistant of the third replica before the one of the drained replica has ended."""
    (first, *_) = (run for run in scenario.runs if run.replica == NEW_OWNER)
    (last,) = (run for run in scenario.runs_in(first.room) if run.attempt == first.attempt - 1)
    return edited(scenario, NEW_OWNER, started=scenario.end_of(last) - 0.001)


WRONG: dict[str, Callable[[ReplicaScenario], ReplicaScenario]] = {
    "Each delivery was answered": lambda run: altered(run, sent=[(run.sent[0][0], 503), *run.sent[1:]]),
    "A webhook that reached two replicas": lambda run: altered(
        run,
        records=[structs.replace(row, deliveries=1) if row.deliveries == 2 else row for row in run.records],
    ),
    "Each room got one assistant": lambda run: altered(run, runs_before=[*run.runs_before, run.runs_before[0]]),
    "One join of each room": lambda run: altered(run, records=run.records[1:]),
    "The other replica took over": lambda run: altered(run, killed_at=run.killed_at - 5),
    "The replica that was told to stop": lambda run: altered(run, exit_code=-9),
    "Its assistants were told why": lambda run: edited(run, run.drained, reason=""),
    "No room ever had two": too_early,
    "When the sessions ended": lambda run: altered(
        run, rooms=[structs.replace(run.rooms[0], reason="it returned"), *run.rooms[1:]]
    ),
}


def test_the_replica_scenario_passes_and_says_so(demo_run: DemoRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(demo_run.scenario.checks(), 1.0) == 0
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
    (wrong,) = failed(WRONG[sentence](demo_run.scenario).checks())
    assert wrong.startswith(sentence)


def test_there_is_a_way_to_fail_each_check(demo_run: DemoRun) -> None:
    assert len(demo_run.scenario.checks()) == len(WRONG)


def test_a_replica_that_left_its_rooms_alone_fails_the_scenario_with_exit_code_1(
    demo_run: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = demo_run.scenario
    alone = altered(scenario, runs=[run for run in scenario.runs if run.replica == scenario.killed])
    assert conclude(alone.checks(), 1.0) == 1
    told = capsys.readouterr().out
    room = min(run.room for run in scenario.runs_before if run.replica == scenario.killed)
    assert f"expected [({room!r}, {scenario.drained}, 2.0)" in told
    assert "observed []" in told


def test_a_takeover_that_was_too_late_is_told_with_its_seconds(
    demo_run: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    late = altered(demo_run.scenario, killed_at=demo_run.scenario.killed_at - 500)
    assert conclude(late.checks(), 1.0) == 1
    assert re.search(rf"observed \[\('/[a-z0-9-]+', {late.drained}, 5[0-9][0-9]\.", capsys.readouterr().out)
