"""What is written to standard error: whole lines, in order, by a thread; and what happens to those that do not fit."""

import contextlib
import copy
import io
import os
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from tests.support.until import AT_ONCE, WITHIN
from whereby_trigger import stderr
from whereby_trigger.stderr import LineWriter, StandardError, never_awaited

PAGE = 4096


class Pipe:
    """Hold a pipe whose writing end is a stream."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self._inode = os.fstat(self.writing).st_ino
        self.stream: TextIO = os.fdopen(self.writing, "w", encoding="utf-8", closefd=False)

    def fill(self) -> int:
        """Fill it up and return how many bytes that took."""
        os.set_blocking(self.writing, False)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(self.writing, b"\n" * PAGE)
        os.set_blocking(self.writing, True)
        return filled

    def empty(self, size: int) -> None:
        while size:
            size -= len(os.read(self.reading, size))

    def until(self, text: str) -> str:
        """Read until a text has come, and return all that came."""
        said = ""
        while text not in said:
            said += os.read(self.reading, PAGE).decode()
        return said

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.reading)
        with contextlib.suppress(OSError):
            if os.fstat(self.writing).st_ino == self._inode:
                # Its number stays taken: a writer that is left over must not write into the pipe of the next test.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.writing)
                os.close(nowhere)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def put(writer: LineWriter, *texts: str) -> None:
    for text in texts:
        writer.put(f"{text}\n", len(text) + 1)


def test_lines_are_written_in_order_and_flushed_at_an_end(pipe: Pipe) -> None:
    writer = LineWriter(pipe.stream)
    put(writer, *map(str, range(500)))
    assert writer.flush()
    assert pipe.until("499\n").splitlines() == [str(number) for number in range(500)]


def test_lines_of_many_threads_stay_whole(pipe: Pipe) -> None:
    standard_error = StandardError(LineWriter(pipe.stream), pipe.stream)

    def say(name: str) -> None:
        for _ in range(50):
            print(name * 40, name * 40, file=standard_error)

    threads = [threading.Thread(target=say, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    put(standard_error.writer, "end")
    assert all(re.fullmatch(r"(.)\1{39} \1{40}|end", line) for line in pipe.until("end\n").splitlines())


def test_a_line_longer_than_a_pipe_is_written_whole(pipe: Pipe) -> None:
    writer = LineWriter(pipe.stream)
    put(writer, "x" * 300_000, "end")
    assert pipe.until("end\n") == "x" * 300_000 + "\nend\n"


def test_a_full_pipe_holds_up_neither_a_line_nor_a_flush_for_longer_than_it_may(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stderr, "MOST_LINES", 100)
    writer = LineWriter(pipe.stream)
    filled = pipe.fill()
    began = time.monotonic()
    put(writer, *map(str, range(1000)))
    assert not writer.flush(within=0.1)
    assert time.monotonic() - began < AT_ONCE
    pipe.empty(filled)
    # Before the note has come there may be no room for one more line.
    shown = pipe.until("gone\n")
    put(writer, "end")
    ended = pipe.until("end\n")
    said = (ended if ended.startswith(shown) else shown + ended).splitlines()
    notes = [int(line.split()[1]) for line in said if "dropped: the reader of standard error" in line]
    assert said[-1] == "end"
    assert sum(notes) + len(said) - len(notes) == 1001
    assert writer.dropped_in_all == sum(notes)


def test_the_note_comes_though_nothing_more_is_logged(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stderr, "MOST_LINES", 1)
    writer = LineWriter(pipe.stream)
    filled = pipe.fill()
    taken = threading.Event()

    def first() -> str:
        taken.set()
        return "a\n"

    # The thread has taken it and waits for the reader from then on: otherwise it could take others between the drops.
    writer.put(first, 2)
    assert taken.wait(WITHIN)
    put(writer, *"bcdef")
    pipe.empty(filled)
    said = pipe.until("gone\n").strip().splitlines()
    assert said[:2] == ["a", "b"]
    assert said[2].startswith("whereby-trigger: 4 log lines were dropped")
    assert writer.dropped == 0


def test_at_the_end_of_a_process_the_lines_that_a_slow_reader_leaves_are_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,700 of 5,700 were read when the process ended, and nothing said that there had been more."""
    monkeypatch.setattr(stderr, "FLUSH_WITHIN", 0.1)
    monkeypatch.setattr(stderr, "COUNT_WITHIN", WITHIN)
    writer = LineWriter(pipe.stream)
    filled = pipe.fill()
    put(writer, *(f"line {number:03d}" for number in range(600)))
    ending = threading.Thread(target=writer.finish)
    ending.start()
    deadline = time.monotonic() + WITHIN
    while not writer.dropped_in_all and time.monotonic() < deadline:
        time.sleep(0.01)
    pipe.empty(filled)
    said = pipe.until("dropped")
    ending.join()
    (dropped,) = re.findall(r"([0-9]+) log lines were dropped", said)
    assert said.count("line ") + int(dropped) == 600


def test_many_characters_wait_no_more_than_many_lines(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stderr, "MOST_CHARACTERS", 10_000)
    writer = LineWriter(pipe.stream)
    pipe.fill()
    put(writer, *["x" * 999] * 100)
    # Reported or not: its thread may take the first ones in between.
    assert 80 <= writer.dropped_in_all <= 95


def test_a_pipe_without_a_reader_takes_nothing_and_raises_nothing(pipe: Pipe) -> None:
    os.close(pipe.reading)
    writer = LineWriter(pipe.stream)
    put(writer, "a", "b")
    assert writer.flush()
    put(writer, "c")
    assert writer.flush()
    assert writer.dropped == 3
    # Reports of what was dropped are lost too, and do not count.
    put(writer, *"defg")
    assert writer.flush()
    assert writer.dropped_in_all == 7


def test_a_descriptor_that_was_closed_and_no_stream_at_all_take_nothing(pipe: Pipe) -> None:
    os.close(pipe.writing)
    for stream in (pipe.stream, None):
        writer = LineWriter(stream)
        put(writer, "a", "b")
        assert writer.flush()
        assert writer.dropped == 2


def test_a_descriptor_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writing, False)
    writer = LineWriter(pipe.stream)
    put(writer, *["x" * 1000] * 500, "end")
    assert len(pipe.until("end\n")) == 500 * 1001 + 4


def test_a_stream_without_a_descriptor_is_written_to() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    put(writer, "a", "\ud800é")
    assert writer.flush()
    assert stream.getvalue() == "a\n\\ud800é\n"


def test_where_no_thread_can_be_started_lines_wait_until_one_can(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    writer = LineWriter(pipe.stream)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        put(writer, "a", "b")
        assert not writer.flush()
    put(writer, "c")
    assert pipe.until("c\n") == "a\nb\nc\n"


def test_a_file_takes_in_one_piece_what_a_pipe_takes_in_many(
    pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def write(descriptor: int, data: bytes) -> int:
        written[descriptor].append(len(data))
        return really_write(descriptor, data)

    really_write, written = os.write, defaultdict[int, list[int]](list)
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        for stream in (pipe.stream, file):
            writer = LineWriter(stream)
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, "start", no_thread)
                put(writer, *["x" * 99] * 100)
            with monkeypatch.context() as patched:
                patched.setattr(os, "write", write)
                assert writer.flush()
        assert max(written[pipe.writing]) <= PAGE
        assert sum(written[pipe.writing]) == 10_000
        assert written[file.fileno()] == [10_000]


def test_a_line_that_cannot_be_made_is_dropped_alone(pipe: Pipe) -> None:
    def fail() -> str:
        raise ValueError

    writer = LineWriter(pipe.stream)
    writer.put(fail, 1)
    put(writer, "a")
    said = pipe.until("gone\n")
    assert "a\n" in said
    assert "1 log line was dropped" in said


def test_what_is_written_to_standard_error_meanwhile_is_written_at_the_end_of_the_block(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", pipe.stream)
    monkeypatch.setattr(sys, "__stderr__", pipe.stream)
    with never_awaited(to_the_end=False):
        sys.stderr.write("begun")
        sys.stderr.write(", and ended\nrest")
        assert sys.stderr.fileno() == pipe.writing
        assert not sys.stderr.isatty()
        with pytest.raises(TypeError):
            sys.stderr.write(b"bytes")  # type: ignore[arg-type]
    assert sys.stderr is pipe.stream
    assert pipe.until("rest") == "begun, and ended\nrest"


def test_what_stands_in_for_standard_error_has_all_that_it_has(pipe: Pipe) -> None:
    ours = StandardError(LineWriter(pipe.stream), pipe.stream)
    for name in dir(pipe.stream):
        if not name.startswith("_"):
            getattr(ours, name)
    assert ours.name == pipe.stream.name
    ours.reconfigure(errors="replace")
    assert pipe.stream.errors == "replace"
    assert copy.copy(ours).fileno() == ours.fileno()


def test_a_stream_that_somebody_put_in_the_place_of_standard_error_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = io.StringIO()
    monkeypatch.setattr(sys, "stderr", theirs)
    with never_awaited(to_the_end=False):
        assert sys.stderr is theirs


def test_a_stream_that_does_more_than_write_is_written_to_and_its_descriptor_is_not(pipe: Pipe) -> None:
    class Tee(io.StringIO):
        def fileno(self) -> int:
            return pipe.writing

    tee = Tee()
    writer = LineWriter(tee)
    put(writer, "a")
    assert writer.flush()
    assert tee.getvalue() == "a\n"


class NoMemory(io.TextIOWrapper):
    """Raise MemoryError when a text is encoded: the one that brings `texts_before` to zero."""

    texts_before = -1
    failed = threading.Event()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        self.texts_before -= 1
        if self.texts_before == 0:
            self.failed.set()
            raise MemoryError
        return super().encoding


def test_a_lack_of_memory_does_not_end_the_thread_that_writes(pipe: Pipe) -> None:
    stream = NoMemory(io.FileIO(pipe.writing, "w", closefd=False), encoding="utf-8")
    writer = LineWriter(stream)

    def line() -> str:
        # This is encoded next, and then the status.
        stream.texts_before = 2
        return "first\n"

    writer.show_status("at work")
    writer.put(line, 6)
    assert stream.failed.wait(WITHIN)
    writer.put("second\n", 7)
    assert "second\n" in pipe.until("second\n")
    assert writer.dropped_in_all == 1
