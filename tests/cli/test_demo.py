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

from whereby_trigger.cli.demo.findings import Found, Notified, checks
from whereby_trigger.cli.demo.meeting import Meeting
from whereby_trigger.cli.demo.play import Stage, conclude
from whereby_trigger.cli.demo.show import Show
from whereby_trigger.cli.demo.venue import Venue
from whereby_trigger.store import State


@dataclass
class Performance:
    """Hold one performance of the demo, made once for all tests here."""

    meeting: Meeting
    found: Found
    output: io.StringIO
    show: Show


@pytest.fixture(scope="module")
def performance(tmp_path_factory: pytest.TempPathFactory) -> Performance:
    meeting, output = Meeting(datetime.now(UTC)), io.StringIO()
    show = Show(Console(file=output))
    folder: Path = tmp_path_factory.mktemp("demo")
    return Performance(meeting, asyncio.run(Stage(folder, show, Venue()).perform(meeting)), output, show)


def altered(found: Found, **fields: Any) -> Found:
    return msgspec.structs.replace(found, **fields)


def edited(rows: Sequence[Any], id: str, **fields: Any) -> list[Any]:
    return [msgspec.structs.replace(row, **fields) if row.id == id else row for row in rows]


def test_the_demo_passes_and_says_so(performance: Performance) -> None:
    assert conclude(performance.show, performance.meeting, performance.found, 1.0) == 0
    assert "All of it came out as it must" in performance.output.getvalue()


def test_the_demo_tells_each_step_as_it_happens(performance: Performance) -> None:
    told = performance.output.getvalue()
    for sent in performance.found.sent:
        assert sent.step.happening in told
    assert told.index("kill -9") < told.index("up again")


WRONG: dict[str, Callable[[Meeting, Found], Found]] = {
    "Each delivery got its answer": lambda meeting, found: altered(
        found, sent=[msgspec.structs.replace(found.sent[0], answer=503), *found.sent[1:]]
    ),
    "The forged delivery was refused": lambda meeting, found: altered(found, refusals=[]),
    "The store holds what was answered 200": lambda meeting, found: altered(found, records=found.records[::-1]),
    "Duplicates were counted": lambda meeting, found: altered(
        found, records=edited(found.records, meeting.host.id, deliveries=1)
    ),
    "Each webhook has the decision": lambda meeting, found: altered(
        found, records=edited(found.records, meeting.host.id, state=State.SKIPPED)
    ),
    "The bot's own join": lambda meeting, found: altered(
        found, records=edited(found.records, meeting.bot.id, reason="no reason")
    ),
    "Of the pair out of order": lambda meeting, found: altered(
        found, records=edited(found.records, meeting.visitor_joined.id, decided_at=0.0)
    ),
    "When the server was killed": lambda meeting, found: altered(
        found, heard_at_death=[*found.heard_at_death, Notified(meeting.session.id, 1)]
    ),
    "Listeners heard once": lambda meeting, found: altered(found, heard=[*found.heard, found.heard[0]]),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_fails_when_it_is_not_so(performance: Performance, sentence: str) -> None:
    found = WRONG[sentence](performance.meeting, performance.found)
    failed = [check.sentence for check in checks(performance.meeting, found) if not check.passed]
    assert [text for text in failed if text.startswith(sentence)] == failed
    assert len(failed) == 1


def test_there_is_a_way_to_fail_each_check(performance: Performance) -> None:
    sentences = [check.sentence for check in checks(performance.meeting, performance.found)]
    assert len(sentences) == len(WRONG)


def test_a_failed_check_says_what_differs_and_gives_exit_code_1(performance: Performance) -> None:
    output = io.StringIO()
    found = altered(performance.found, records=performance.found.records[1:])
    assert conclude(Show(Console(file=output)), performance.meeting, found, 1.0) == 1
    assert "must be ['host in /visit-7', 'bot in /visit-7'" in output.getvalue()
    assert "but is  ['bot in /visit-7'" in output.getvalue()
