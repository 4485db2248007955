"""Endless output of an assistant blocks nobody: its lines are passed on a few at a time, all and in order."""

import asyncio
import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
import uvloop

from tests.assist.started import started
from tests.support.until import eventually
from whereby_trigger.assist import pipes, process
from whereby_trigger.assist.pipes import CHUNK, LONGEST, LineReader
from whereby_trigger.assist.process import KEPT

pytestmark = pytest.mark.anyio

FEW = 100
MANY = [b"%04d" % number for number in range(10_000)]
"""Lines that fit into a pipe together."""


class Turns:
    """Count in each turn of the loop how many lines came since the turn before."""

    def __init__(self, lines: list[bytes], each_turn: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._each_turn = each_turn
        self._lines = lines
        self.most_in_a_turn = 0
        self._seen = 0
        self._over = False
        self._turn()

    def _turn(self) -> None:
        self._each_turn()
        self.most_in_a_turn = max(self.most_in_a_turn, len(self._lines) - self._seen)
        self._seen = len(self._lines)
        if not self._over:
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        self._over = True
        self._turn()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Yield a pipe whose reading end the reader closes, and whose writing end never blocks."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield reading, writing
    os.close(writing)


def written(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


async def test_between_a_few_lines_and_the_next_everybody_else_has_a_turn(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    assert os.write(writing, written(MANY)) == len(written(MANY))
    taken: list[bytes] = []
    turns = Turns(taken)
    reader = LineReader(reading, taken.append)
    await eventually(lambda: len(taken) == len(MANY))
    turns.close()
    reader.close()
    assert taken == MANY
    assert turns.most_in_a_turn <= FEW


async def test_the_lines_of_very_many_take_turns_together() -> None:
    """1,000 assistants that print a few lines each, as after an outage, held up the loop for 2 s."""
    shared, taken, ends = pipes.Turns(), list[bytes](), [os.pipe() for _ in range(200)]
    for _, writing in ends:
        assert os.write(writing, written(MANY[:20])) == 100
        os.close(writing)
    turns = Turns(taken)
    readers = [LineReader(reading, taken.append, shared) for reading, _ in ends]
    await asyncio.gather(*(reader.ended for reader in readers))
    turns.close()
    assert sorted(taken) == sorted(MANY[:20] * len(ends))
    assert turns.most_in_a_turn <= FEW


async def test_an_error_in_a_turn_ends_nobody_elses() -> None:
    loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: told.append(context))
    shared, taken, (reading, writing) = pipes.Turns(), list[bytes](), os.pipe()
    shared.ask(Mock(hand_on=Mock(side_effect=MemoryError)))
    os.write(writing, written(MANY[:20]))
    os.close(writing)
    reader = LineReader(reading, taken.append, shared)
    await eventually(reader.ended.done)
    assert taken == MANY[:20]
    assert [type(context["exception"]) for context in told] == [MemoryError]


async def test_what_else_holds_up_the_loop_does_not_hold_up_the_lines_as_long_again(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    shared, taken = pipes.Turns(), list[bytes]()
    shared.ask(Mock(hand_on=lambda most: 1))
    # As if the loop had been held up for an hour since then.
    shared._began -= 3600
    os.write(writing, written(MANY[:40]))
    reader = LineReader(reading, taken.append, shared)
    await eventually(lambda: taken == MANY[:40])
    reader.close()


class Endless(selectors.DefaultSelector):
    """Fill a pipe before each look of a loop, and stop the loop once it has waited in ten of its looks."""

    def __init__(self, writing: int, output: bytes) -> None:
        super().__init__()
        self._writing, self._output = writing, output
        self.looks = self.waits = 0
        self.stop: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> Any:
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, self._output)
        ready = super().select(timeout)
        self.looks += 1
        self.waits += timeout != 0 and not ready
        if self.waits == 10 or self.looks == 5000:
            self.stop()
        return ready


def take_time(line: bytes) -> None:
    """Take as long as a log does."""
    over = time.perf_counter() + 0.0001
    while time.perf_counter() < over:
        pass


@pytest.mark.parametrize(
    "output", [b"line\n" * (CHUNK // 5), b"line\n", b"x" * CHUNK, b"x"], ids=["lines", "a line", "no line", "a byte"]
)
def test_the_loop_waits_in_between_however_much_a_program_prints(pipe: tuple[int, int], output: bytes) -> None:
    """Beside a loop that never waits, the thread of the store got its turn only every few milliseconds."""
    reading, writing = pipe
    selector = Endless(writing, output)
    with contextlib.closing(asyncio.SelectorEventLoop(selector)) as loop:
        selector.stop = loop.stop
        loop.call_soon(lambda: LineReader(reading, take_time))
        loop.run_forever()
        os.close(reading)
    assert selector.waits == 10


async def test_while_lines_wait_nothing_more_is_read(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines, behind = MANY * 10, 0
    unsent = written(lines)

    def write() -> None:
        nonlocal unsent, behind
        with contextlib.suppress(BlockingIOError):
            unsent = unsent[os.write(writing, unsent) :]
        behind = max(behind, len(lines) - len(unsent) // 5 - len(taken))

    taken: list[bytes] = []
    turns = Turns(taken, write)
    reader = LineReader(reading, taken.append)
    await eventually(lambda: len(taken) == len(lines))
    turns.close()
    reader.close()
    assert taken == lines
    assert behind <= 2 * CHUNK // 5 + FEW, "it was held here instead of in the pipe, where it slows who prints"


async def test_what_was_printed_by_the_time_of_the_close_is_handed_on_all_the_same(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, written(MANY) + b"the rest")
    taken: list[bytes] = []
    turns = Turns(taken)
    reader = LineReader(reading, taken.append)
    reader.close()
    assert [*taken, *reader.left] == [*MANY, b"the rest"]
    await asyncio.wait_for(reader.ended, 20)
    turns.close()
    assert taken == [*MANY, b"the rest"]
    assert turns.most_in_a_turn <= FEW
    assert reader.left == []


async def test_no_more_is_kept_of_a_line_than_can_be_shown(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"x" * (CHUNK - 1) + b"\n")
    taken: list[bytes] = []
    reader = LineReader(reading, taken.append)
    await eventually(lambda: taken)
    reader.close()
    assert list(map(len, taken)) == [LONGEST + 1], "50 of them are kept of each assistant"


async def test_the_last_lines_of_stderr_are_kept_even_where_many_are_still_to_be_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "LINGER", 0.0)
    logged: list[str] = []
    async with started(["sh", "-c", "seq 20000 >&2"], line=lambda _, text: logged.append(text)) as one:
        exit = await one.wait()
    expected = [str(number) for number in range(1, 20_001)]
    assert exit.stderr == tuple(expected[-KEPT:])
    await eventually(lambda: len(logged) == len(expected))
    assert logged == expected


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_the_end_is_seen_though_the_other_end_was_closed_with_unread_lines(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    # As when a guard ends at the moment in which it gets a new deadline.
    ours, theirs = socket.socketpair()
    ours.sendall(b"deadline 1.0\n")
    theirs.sendall(b"exited 0\n")
    taken: list[bytes] = []

    async def read() -> None:
        reader = LineReader(ours.detach(), taken.append)
        theirs.close()
        try:
            await asyncio.wait_for(reader.ended, 20)
        finally:
            reader.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(read())
    assert taken == [b"exited 0"]
