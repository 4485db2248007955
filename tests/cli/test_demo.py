"""The demo: that it passes, and that each of its checks fails when what it checks is not so."""

import asyncio
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from whereby_trigger.cli.demo.checks import CrashResult, Notified, check_crash
from whereby_trigger.cli.demo.meetings import CrashMeeting
from whereby_trigger.cli.demo.report import Report
from whereby_trigger.cli.demo.scenario import CrashScenario, conclude_crash
from whereby_trigger.cli.demo.server import DemoStore
from whereby_trigger.store import State


@dataclass
class DemoRun:
    """Hold one demo_run of the demo, made once for all tests here."""

    meeting: CrashMeeting
    result: CrashResult
    output: io.StringIO
    report: Report


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    meeting, output = CrashMeeting(datetime.now(UTC)), io.StringIO()
    report = Report(Console(file=output))
    folder: Path = tmp_path_factory.mktemp("demo")
    return DemoRun(meeting, asyncio.run(CrashScenario(folder, report, DemoStore()).run(meeting)), output, report)


def altered(result: CrashResult, **fields: Any) -> CrashResult:
    return msgspec.structs.replace(result, **fields)


def edited(rows: Sequence[Any], id: str, **fields: Any) -> list[Any]:
    return [msgspec.structs.replace(row, **fields) if row.id == id else row for row in rows]


def test_the_demo_passes_and_says_so(demo_run: DemoRun) -> None:
    assert conclude_crash(demo_run.report, demo_run.meeting, demo_run.result, 1.0) == 0
    assert "All 9 checks passed" in demo_run.output.getvalue()


def test_the_demo_tells_each_step_as_it_happens(demo_run: DemoRun) -> None:
    told = demo_run.output.getvalue()
    for sent in demo_run.result.sent:
        assert sent.step.happening in told
    assert told.index("kill -9") < told.index("up again")


WRONG: dict[str, Callable[[CrashMeeting, CrashResult], CrashResult]] = {
    "Each delivery got its answer": lambda meeting, result: altered(
        result, sent=[msgspec.structs.replace(result.sent[0], answer=503), *result.sent[1:]]
    ),
    "The forged delivery was refused": lambda meeting, result: altered(result, refusals=[]),
    "The store holds each webhook": lambda meeting, result: altered(result, records=result.records[::-1]),
    "Duplicates were counted": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.host.id, deliveries=1)
    ),
    "Each webhook has the decision": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.host.id, state=State.SKIPPED)
    ),
    "The bot's own join": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.bot.id, reason="no reason")
    ),
    "The two webhooks out of order": lambda meeting, result: altered(
        result, records=edited(result.records, meeting.visitor_joined.id, decided_at=0.0)
    ),
    "When the server was killed": lambda meeting, result: altered(
        result, heard_at_death=[*result.heard_at_death, Notified(meeting.session.id, 1)]
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


def test_a_failed_check_says_what_differs_and_gives_exit_code_1(demo_run: DemoRun) -> None:
    output = io.StringIO()
    result = altered(demo_run.result, records=demo_run.result.records[1:])
    assert conclude_crash(Report(Console(file=output)), demo_run.meeting, result, 1.0) == 1
    assert "expected ['host in /visit-7', 'bot in /visit-7'" in output.getvalue()
    assert "actual   ['bot in /visit-7'" in output.getvalue()
