"""The demo: that it passes, and that each of its checks fails when what it checks is not so."""

import asyncio
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from whereby_trigger.cli.demo.checks import CrashResult, check_crash
from whereby_trigger.cli.demo.meetings import CrashMeeting
from whereby_trigger.cli.demo.report import conclude
from whereby_trigger.cli.demo.scenario import CrashScenario
from whereby_trigger.cli.demo.store import DemoStore
from whereby_trigger.store import State


@dataclass
class DemoRun:
    """Hold one demo_run of the demo, made once for all tests here."""

    meeting: CrashMeeting
    result: CrashResult
    told: str


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    meeting, folder = CrashMeeting(datetime.now(UTC)), tmp_path_factory.mktemp("demo")
    with redirect_stdout(io.StringIO()) as output:
        result = asyncio.run(CrashScenario(folder, DemoStore()).run(meeting))
    return DemoRun(meeting, result, output.getvalue())


def altered(result: CrashResult, **fields: Any) -> CrashResult:
    return msgspec.structs.replace(result, **fields)


def edited(rows: Sequence[Any], id: str, **fields: Any) -> list[Any]:
    return [msgspec.structs.replace(row, **fields) if row.id == id else row for row in rows]


def test_the_demo_passes_and_says_so(demo_run: DemoRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert conclude(check_crash(demo_run.meeting, demo_run.result), 1.0) == 0
    assert "All 9 checks passed" in capsys.readouterr().out


def test_the_demo_tells_each_step_as_it_happens(demo_run: DemoRun) -> None:
    for sent in demo_run.result.sent:
        assert sent.step.happening in demo_run.told
    assert demo_run.told.index("kill -9") < demo_run.told.index("up again")


def test_the_demo_shows_what_rooms_show_says_of_each_room(demo_run: DemoRun) -> None:
    for room in ("/visit-7", "/standup"):
        assert f"$ whereby-trigger rooms show acme.whereby.com{room}" in demo_run.told
    assert "delivered 2 times: fired, predicate in_calendar returned True" in demo_run.told
    assert "1 delivery refused: wrong signature, answered 401" in demo_run.told


WRONG: dict[str, Callable[[CrashMeeting, CrashResult], CrashResult]] = {
    "Each delivery got its answer": lambda meeting, result: altered(
        result, sent=[msgspec.structs.replace(result.sent[0], answer=503), *result.sent[1:]]
    ),
    "The forged delivery was refused": lambda meeting, result: altered(result, refusals=[]),
    "The store holds each webhook": lambda meeting, result: altered(result, records=result.records[::-1]),
    "Duplicates were counted": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.host.webhook.id, deliveries=1)
    ),
    "Each webhook has the decision": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.host.webhook.id, state=State.SKIPPED)
    ),
    "The bot's own join": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.bot.webhook.id, reason="no reason")
    ),
    "The two webhooks out of order": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.joined.webhook.id, decided_at=0.0)
    ),
    "When the server was killed": lambda meeting, result: altered(
        result, heard_at_death=[*result.heard_at_death, (meeting.session.webhook.id, 1)]
    ),
    "Listeners were called once": lambda meeting, result: altered(result, heard=[*result.heard, result.heard[0]]),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_fails_when_it_is_not_so(demo_run: DemoRun, sentence: str) -> None:
    result = WRONG[sentence](demo_run.meeting, demo_run.result)
    failed = [check.sentence for check in check_crash(demo_run.meeting, result) if not check.passed]
    assert [text for text in failed if text.startswith(sentence)] == failed
    assert len(failed) == 1


def test_there_is_a_way_to_fail_each_check(demo_run: DemoRun) -> None:
    sentences = [check.sentence for check in check_crash(demo_run.meeting, demo_run.result)]
    assert len(sentences) == len(WRONG)


def test_a_failed_check_says_what_differs_and_gives_exit_code_1(
    demo_run: DemoRun, capsys: pytest.CaptureFixture[str]
) -> None:
    result = altered(demo_run.result, records=demo_run.result.records[1:])
    assert conclude(check_crash(demo_run.meeting, result), 1.0) == 1
    told = capsys.readouterr().out
    assert "expected ['a host enters /visit-7', 'the assistant itself enters /visit-7'" in told
    assert "actual   ['the assistant itself enters /visit-7'" in told
