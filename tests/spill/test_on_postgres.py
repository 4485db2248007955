"""The program on a real PostgreSQL that goes away: stopped, frozen, or not there at the start."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from reliability.rows.power_loss import answers_in
from reliability.tools import ToolMissing
from reliability.trace import read_trace, tracer
from tests.support.postgres import Server
from tests.support.process import Process, descendants, run, whereby_trigger
from tests.support.programs import HUMANS_JOIN, free_port, write
from tests.support.stored import stored
from tests.support.until import until
from tests.support.whereby import SECRET, deliver, request
from whereby_trigger.store import State
from whereby_trigger.testing import webhook

ANSWER_WITHIN = 4.8
"""Seconds after which Whereby would hardly get its answer. Source: Whereby docs, Failed delivery."""

NO_LONGER = 30.0
"""Seconds until a database that is back has everything, on a busy machine."""


class Program:
    """Start a program with a spill as often as a test wants, and deliver to it."""

    def __init__(self, folder: Path, store: str) -> None:
        write(folder, HUMANS_JOIN)
        self.folder, self.store, self.spill = folder, store, folder / "spill.db"
        self._running = ExitStack()

    def start(self, *prefix: str) -> Process:
        options = ("--port", "0", "--host", "127.0.0.1", "--store", self.store, "--spill", f"sqlite:///{self.spill}")
        program = [*prefix, *whereby_trigger("start", *options)]
        process = Process(program, cwd=self.folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET})
        self._running.enter_context(process)
        self.url = f"http://127.0.0.1:{process.port()}/"
        return process

    def deliver(self, *ids: str) -> None:
        """Deliver to the process that was started last; each must be answered 200, and in time."""
        for id in ids:
            started = time.monotonic()
            assert deliver(self.url, webhook("room.client.joined", id=id)).status == 200
            assert time.monotonic() - started < ANSWER_WITHIN

    def spilled(self) -> int:
        answer = request("GET", f"{self.url}readyz")
        assert answer.status == 200
        length: int = json.loads(answer.body)["spilled"]
        return length

    def stored(self) -> list[tuple[str, State, int]]:
        """Return what the store holds, in its order of arrival: id, state, deliveries."""
        return [(record.id, record.state, record.deliveries) for record in stored(self.store)]

    def decided(self, *ids: str) -> None:
        """Wait until exactly these are stored, in this order, and each has fired."""
        until(lambda: self.spilled() == 0, NO_LONGER)
        until(lambda: all(state is State.FIRED for _, state, _ in self.stored()), NO_LONGER)
        assert [id for id, _, _ in self.stored()] == list(ids)

    def close(self) -> None:
        self._running.close()


@pytest.fixture
def program(tmp_path: Path, postgres: Server) -> Iterator[Program]:
    program = Program(tmp_path, postgres.create_database())
    yield program
    program.close()


@pytest.fixture
def unreachable(tmp_path: Path) -> Iterator[Program]:
    """Yield a program whose database does not exist."""
    program = Program(tmp_path, f"postgresql://nobody:secret@127.0.0.1:{free_port()}/nothing")
    yield program
    program.close()


def test_a_database_that_is_stopped_and_started_again_costs_no_delivery(program: Program, postgres: Server) -> None:
    process = program.start()
    program.deliver("a", "b")
    postgres.stop()
    program.deliver(*"cdefg")
    assert program.spilled() == 5
    postgres.start()
    program.decided(*"abcdefg")
    program.deliver("h")
    program.decided(*"abcdefgh")
    assert process.stop() == 0, process.output


def test_a_database_that_is_frozen_is_answered_for_in_time(program: Program, postgres: Server) -> None:
    program.start()
    program.deliver("a")
    postgres.pause()
    program.deliver("b", "c", "d")
    assert program.spilled() == 3
    postgres.resume()
    program.decided("a", "b", "c", "d")


def test_a_program_that_is_killed_in_the_outage_and_started_in_it_loses_nothing(
    program: Program, postgres: Server
) -> None:
    process = program.start()
    program.deliver("a")
    program.decided("a")
    postgres.stop()
    program.deliver("b", "c")
    process.kill()
    process = program.start()
    assert program.spilled() == 2
    program.deliver("d")
    postgres.start()
    program.decided("a", "b", "c", "d")
    program.deliver("e")
    program.decided("a", "b", "c", "d", "e")
    assert process.stop() == 0, process.output


def test_the_start_says_where_the_spill_is_and_that_the_database_is_away(unreachable: Program) -> None:
    process = unreachable.start()
    away = next(json.loads(line) for line in process.output.splitlines() if "deliveries go into the spill" in line)
    assert away["message"].startswith(f"deliveries go into the spill {unreachable.spill}: the store postgresql://")
    started = next(json.loads(line) for line in process.output.splitlines() if "predicates for" in line)
    assert f", spill {unreachable.spill}, predicates for" in started["message"]
    assert "secret" not in process.output
    unreachable.deliver("a")
    assert process.stop() == 0
    assert f"deliveries that stay in the spill {unreachable.spill} until the next start: 1" in process.output


def test_send_waits_for_a_decision_also_while_the_database_is_not_there_yet(program: Program, postgres: Server) -> None:
    postgres.stop()
    program.start()
    options = ("--url", program.url, "--wait", "--store", program.store)
    env = {"WHEREBY_WEBHOOK_SECRET": SECRET, "WHEREBY_TRIGGER_SPILL": f"sqlite:///{program.spill}"}
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(run, "send", "room.client.joined", *options, cwd=program.folder, env=env)
        until(lambda: program.spilled() == 1, NO_LONGER)
        postgres.start()
        ended = sending.result()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[1] == "fired  predicate people returned True"


def test_a_second_process_with_the_same_spill_does_not_start_and_says_why(unreachable: Program) -> None:
    unreachable.start()
    options = ("--port", "0", "--store", unreachable.store, "--spill", f"sqlite:///{unreachable.spill}")
    ended = run("start", *options, cwd=unreachable.folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET})
    assert ended.returncode == 1
    assert "is in use by another replica, and each needs one of its own" in ended.stderr


def test_without_a_spill_a_start_without_the_database_fails(unreachable: Program) -> None:
    options = ("--port", "0", "--store", unreachable.store)
    ended = run("start", *options, cwd=unreachable.folder, env={"WHEREBY_WEBHOOK_SECRET": SECRET})
    assert ended.returncode == 1
    assert "cannot be reached" in ended.stderr


def test_no_200_leaves_before_what_was_spilled_is_on_disk(unreachable: Program, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    try:
        prefix = tracer(trace)
    except ToolMissing as missing:
        pytest.skip(str(missing))
    process = unreachable.start(*prefix)
    ids = [f"{n:064x}" for n in range(40)]
    unreachable.deliver(*ids)
    # The tracer writes a call after it was made: the last one's line may be lost in the kill.
    unreachable.deliver(f"{len(ids):064x}")
    for traced in descendants(process.popen.pid)[1:]:
        os.kill(traced, signal.SIGKILL)
    process.wait()
    with trace.open(encoding="ascii") as lines:
        answers = answers_in(list(read_trace(lines)), f"{unreachable.spill.name}-wal")
    assert {answer.id for answer in answers} >= set(ids)
    assert all(answer.synced for answer in answers)
