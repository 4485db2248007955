"""The demo passes, and each of its checks fails if its condition does not hold."""

import asyncio
import copy
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import structs

from whereby_trigger.cli.demo import conclude, failed
from whereby_trigger.cli.demo.crash import CrashScenario
from whereby_trigger.store import State


@dataclass
class DemoRun:
    """Hold one run of the first scenario, shared by all tests here."""

    scenario: CrashScenario
    told: str


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    scenario = CrashScenario(tmp_path_factory.mktemp("demo"))
    with redirect_stdout(io.StringIO()) as output:
        asyncio.run(scenario.run())
    return DemoRun(scenario, output.getvalue())


def altered(scenario: CrashScenario, **observed: Any) -> CrashScenario:
    """Return the scenario as if something else had been observed."""
    other = copy.copy(scenario)
    vars(other).update(observed)
    return other


def edited(rows: Sequence[Any], id: str, **fields: Any) -> list[Any]:
    return [structs.replace(row, **fields) if row.id == id else row for row in rows]


def test_the_demo_passes_and_says_so(demo_run: DemoRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(demo_run.scenario.checks(), 1.0) == 0
    assert "All 9 checks passed" in capsys.readouterr().out


def test_the_demo_tells_each_step_as_it_happens(demo_run: DemoRun) -> None:
    for step, _ in demo_run.scenario.sent:
        assert step.happening in demo_run.told
    assert demo_run.told.index("kill -9") < demo_run.told.index("up again")


def test_the_demo_shows_what_rooms_show_says_of_each_room(demo_run: DemoRun) -> None:
    for room in ("/visit-7", "/standup"):
        assert f"$ whereby-trigger rooms show acme.whereby.com{room}" in demo_run.told
    assert "room.session.started, delivered 2 times" in demo_run.told
    assert "fired, predicate in_calendar returned True" in demo_run.told
    assert "1 delivery refused: wrong signature, answered 401" in demo_run.told


WRONG: dict[str, Callable[[CrashScenario], CrashScenario]] = {
    "Each delivery got its answer": lambda run: altered(run, sent=[(run.sent[0][0], 503), *run.sent[1:]]),
    "The forged delivery was refused": lambda run: altered(run, refusals=[]),
    "The store holds each webhook": lambda run: altered(run, records=run.records[::-1]),
    "Duplicates were counted": lambda run: altered(run, records=edited(run.records, run.host.webhook.id, deliveries=1)),
    "Each webhook has the decision": lambda run: altered(
        run, records=edited(run.records, run.host.webhook.id, state=State.SKIPPED)
    ),
    "The bot's own join": lambda run: altered(run, records=edited(run.records, run.bot.webhook.id, reason="no reason")),
    "The two webhooks out of order": lambda run: altered(
        run, records=edited(run.records, run.joined.webhook.id, decided_at=0.0)
    ),
    "When the server was killed": lambda run: altered(
        run, heard_at_death=[*run.heard_at_death, (run.session.webhook.id, 1)]
    ),
    "Listeners were called once": lambda run: altered(run, heard=[*run.heard, run.heard[0]]),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_fails_when_it_is_not_so(demo_run: DemoRun, sentence: str) -> None:
    (wrong,) = failed(WRONG[sentence](demo_run.scenario).checks())
    assert wrong.startswith(sentence)


def test_there_is_a_way_to_fail_each_check(demo_run: DemoRun) -> None:
    assert len(demo_run.scenario.checks()) == len(WRONG)


def test_a_failed_check_says_what_differs_and_gives_exit_code_1(
    demo_run: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    without_the_first = altered(demo_run.scenario, records=demo_run.scenario.records[1:])
    assert conclude(without_the_first.checks(), 1.0) == 1
    told = capsys.readouterr().out
    assert "expected ['a host enters /visit-7', 'the assistant itself enters /visit-7'" in told
    assert "observed ['the assistant itself enters /visit-7'" in told
