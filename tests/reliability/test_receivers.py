"""The harness and the tests end only their own processes: the number of an ended process may be another's."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reliability.receivers import Receivers
from tests.support.process import Process


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Process]:
    with Process(["sleep", "600"], cwd=tmp_path) as process:
        yield process


def test_a_program_that_has_ended_takes_nobody_along_who_has_its_number(tmp_path: Path, another: Process) -> None:
    with Process(["true"], cwd=tmp_path) as ended:
        ended.wait()
        ended.popen.pid = another.popen.pid
    assert another.stop() == -signal.SIGTERM


def test_what_a_program_that_has_ended_left_running_is_ended(tmp_path: Path) -> None:
    with Process(["sh", "-c", "sleep 600 & echo left"], cwd=tmp_path) as ended:
        ended.line("left")
        ended.popen.wait()
        assert not ended.closed
    assert ended.closed


@pytest.mark.anyio
async def test_a_receiver_that_has_ended_takes_nobody_along_who_has_its_number(
    tmp_path: Path, another: Process
) -> None:
    receivers = Receivers("sqlite:///nowhere/store.db", tmp_path / "emissions")
    receiver = await receivers.start("--no-such-option")
    await receiver.ended()
    receiver._process.pid = another.popen.pid
    await receivers.close()
    assert another.stop() == -signal.SIGTERM


@pytest.mark.anyio
async def test_receivers_that_are_started_at_the_same_time_have_a_life_each(tmp_path: Path) -> None:
    async with Receivers("sqlite:///nowhere/store.db", tmp_path / "emissions") as receivers:
        started = await asyncio.gather(*(receivers.start("--no-such-option") for _ in range(3)))
    assert {receiver.life for receiver in started} == {1, 2, 3}
