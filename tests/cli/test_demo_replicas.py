"""The demo's second act: that it passes, and that each of its checks fails when what it checks is not so."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from whereby_trigger.cli.demo.crowd import Crowd
from whereby_trigger.cli.demo.presence import Observed, Stay, checks
from whereby_trigger.cli.demo.replicas import Replicas, conclude
from whereby_trigger.cli.demo.show import Show
from whereby_trigger.cli.demo.venue import Venue


@dataclass
class Performance:
    """Hold one performance of the second act, made once for all tests here."""

    crowd: Crowd
    observed: Observed
    output: io.StringIO
    show: Show


@pytest.fixture(scope="module")
def performance(tmp_path_factory: pytest.TempPathFactory) -> Performance:
    crowd, output = Crowd(datetime.now(UTC)), io.StringIO()
    show = Show(Console(file=output))
    folder: Path = tmp_path_factory.mktemp("replicas")
    return Performance(crowd, asyncio.run(Replicas(folder, show, Venue()).perform(crowd)), output, show)


def altered(observed: Observed, **fields: Any) -> Observed:
    return structs.replace(observed, **fields)


def edited(observed: Observed, replica: int, change: Callable[[Stay], Stay]) -> Observed:
    """Change the first stay of a replica."""
    (edited, *_) = (stay for stay in observed.stays if stay.replica == replica)
    return altered(observed, stays=[change(stay) if stay is edited else stay for stay in observed.stays])


def too_early(observed: Observed) -> Observed:
    """Have an assistant of the third replica come while that of the one before it is there."""
    (heirs, *_) = (stay for stay in observed.stays if stay.replica == observed.heir)
    (last,) = (stay for stay in observed.stays_in(heirs.room) if stay.attempt == heirs.attempt - 1)
    before_it_left = observed.left(last) - 0.001
    return edited(observed, observed.heir, lambda stay: structs.replace(stay, came=before_it_left))


WRONG: dict[str, Callable[[Observed], Observed]] = {
    "Each delivery was answered": lambda observed: altered(
        observed, sent=[structs.replace(observed.sent[0], answer=503), *observed.sent[1:]]
    ),
    "What reached both replicas at once": lambda observed: altered(
        observed,
        records=[structs.replace(row, deliveries=1) if row.deliveries == 2 else row for row in observed.records],
    ),
    "One assistant came to each room": lambda observed: altered(
        observed, stays_before=[*observed.stays_before, observed.stays_before[0]]
    ),
    "One join of each room": lambda observed: altered(observed, records=observed.records[1:]),
    "What the killed replica had": lambda observed: altered(observed, killed_at=observed.killed_at - 5),
    "The replica that was told to stop": lambda observed: altered(observed, exit_code=-9),
    "Its assistants were told why": lambda observed: edited(
        observed, observed.drained, lambda stay: structs.replace(stay, why="")
    ),
    "At no time were two": too_early,
    "When the sessions ended": lambda observed: altered(
        observed, rooms=[structs.replace(observed.rooms[0], reason="it returned"), *observed.rooms[1:]]
    ),
}


def test_the_second_act_passes_and_says_so(performance: Performance) -> None:
    assert conclude(performance.show, performance.crowd, performance.observed, 1.0) == 0
    assert "All of it came out as it must" in performance.output.getvalue()


def test_the_second_act_tells_each_step_as_it_happens(performance: Performance) -> None:
    told = performance.output.getvalue()
    assert told.index("to replica 2") < told.index("kill -9") < told.index("SIGTERM") < told.index("the session in")


@pytest.mark.parametrize("sentence", WRONG)
def test_each_check_fails_when_it_is_not_so(performance: Performance, sentence: str) -> None:
    observed = WRONG[sentence](performance.observed)
    failed = [check.sentence for check in checks(performance.crowd, observed) if not check.passed]
    assert len(failed) == 1
    assert failed[0].startswith(sentence)


def test_there_is_a_way_to_fail_each_check(performance: Performance) -> None:
    assert len(checks(performance.crowd, performance.observed)) == len(WRONG)


def test_a_replica_that_left_its_rooms_alone_fails_the_act_with_exit_code_1(performance: Performance) -> None:
    output = io.StringIO()
    observed = performance.observed
    alone = altered(observed, stays=[stay for stay in observed.stays if stay.replica == observed.killed])
    assert conclude(Show(Console(file=output)), performance.crowd, alone, 1.0) == 1
    assert f"must be {{'/visit-8': ({observed.drained}, 'within 2 s')" in output.getvalue()
    assert "but is  {'/visit-8': None" in output.getvalue()
