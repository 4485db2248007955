"""Row 29: nobody, or almost nobody, reads the log while deliveries come and assistants are in their rooms."""

import asyncio
import math
import re
import signal
import time
from collections import defaultdict
from collections.abc import Collection, Sequence, Set
from pathlib import Path

from msgspec import Struct

from reliability import ROOT
from reliability.assistants import Ticks
from reliability.checker import check, in_words
from reliability.corpus import VISIT_ROOMS
from reliability.load import Load
from reliability.measures import percentile
from reliability.receiver import BLOCK
from reliability.receivers import Receivers, rooms_served
from reliability.row import Figures, Result, found
from reliability.stores import Stores, View, viewing
from tests.support.programs import free_port
from tests.support.unread import Unread
from whereby_trigger.process import EXIT_CODE
from whereby_trigger.store import State
from whereby_trigger.testing.program import until
from whereby_trigger.testing.sender import Response

READ = "there"
FAULTS = {"stalls": "pipe", "closes": "gone", "takes a line a second": "slow", "closed from the start": None}
TTL = 3.0
P99_MORE = 0.1
"""Seconds by which the p99 may exceed that of a log that is read: the machine also does other work."""

UNDER_WAY = 1.0
"""Seconds after the start of all assistants, together on the same cores, until delayed deliveries are answered.

The p99 begins then: otherwise these programs decide it, whether the log is read or not.
"""

READ_EVERY = 5
"""For this many lives with each fault there is one whose log is read, for comparison."""

END_WITHIN = 5.0
SERVED_WITHIN = 60.0
START_WITHIN = 30.0
DROPPED = re.compile(r"([0-9]+) log lines? (?:was|were) dropped")


async def run(
    folder: Path,
    stores: Stores,
    *,
    doses: int,
    rate: float,
    seconds: float,
    side_by_side: int = 1,
    faults: Collection[str] = tuple(FAULTS),
) -> Result:
    """Inject each fault `doses` times, each in one life of a receiver, ended by SIGTERM or the watchdog.

    The load lasts until each room has its assistant, and then for `seconds` seconds. `side_by_side` receivers live at
    the same time, each with a store of its own.
    """
    cells = [_Cell(folder / str(number), stores, rate, seconds) for number in range(side_by_side)]
    try:
        await asyncio.gather(*(cell.lives(math.ceil(doses / side_by_side), faults) for cell in cells))
        return _result(cells, rate)
    finally:
        for cell in cells:
            await cell.close()


class _Answers(Struct):
    """Hold all answers of some lives, and those given once their assistants had started."""

    all: list[Response] = []
    later: list[Response] = []

    def add(self, life: "_Answers") -> None:
        self.all += life.all
        self.later += life.later

    @property
    def p99(self) -> float:
        return percentile([answer.seconds for answer in self.later], 99)


class _Cell:
    """Hold a store, its receiver, and what came of each life of that."""

    def __init__(self, folder: Path, stores: Stores, rate: float, seconds: float) -> None:
        self.of: defaultdict[str, _Answers] = defaultdict(_Answers)
        self.ends: dict[str, list[float]] = {"SIGTERM": [], "the watchdog": []}
        self.counted = 0
        self.overlaps = 0
        self.problems: list[str] = []
        self._folder = folder
        self._late_takeovers = stores.late_takeovers
        self._rate = rate
        self._seconds = seconds
        url = stores.new(folder)
        self._ticks = Ticks(folder / "ticks")
        self._load = Load(folder, seed=29)
        options = ("--ticks", str(self._ticks.path), "--lease-ttl", f"{TTL:g}", "--drain-timeout", "0")
        self._receivers = Receivers(url, folder / "emissions", options=options)

    async def lives(self, doses: int, faults: Collection[str]) -> None:
        """Inject each fault `doses` times, then check all answers and the store."""
        # The first life has no assistants to take over, so it does not start any immediately.
        await self._life(READ, blocked=False)
        for number in range(doses):
            # Run these in between, so both see the same state of the machine and the store.
            if number % READ_EVERY == 0:
                self.of[READ].add(await self._life(READ, blocked=False))
            for fault in faults:
                self.of[fault].add(await self._life(FAULTS[fault], blocked=bool(number % 2)))
        await self._check()

    async def _life(self, kind: str | None, *, blocked: bool) -> _Answers:
        """Deliver to one receiver, then end it; return the answers."""
        program = self._receivers.command("--log")
        before, known = len(self._load.each), frozenset(self._load.items)
        with await asyncio.to_thread(self._begin, kind, program) as process:
            self._load.port = int(process.url.rpartition(":")[2].rstrip("/"))
            await self._until_it_listens()
            async with self._load.going(self._rate):
                await self._until_served(VISIT_ROOMS, process)
                await asyncio.sleep(UNDER_WAY)
                started = len(self._load.each)
                await asyncio.sleep(self._seconds)
            answers = _Answers(self._load.each[before:], self._load.each[started:])
            if kind == "pipe" and not blocked:
                await self._end_read(process, len(answers.all), self._load.items.keys() - known)
            else:
                await self._end(process, blocked=blocked)
        return answers

    async def _until_served(self, rooms: Sequence[str], process: Unread) -> None:
        served = await self._ticks.until(rooms, SERVED_WITHIN, lambda tick: tick.host == process.popen.pid)
        missing = ", ".join(sorted(set(rooms) - served.keys()))
        if missing:
            self.problems.append(f"life {self._receivers.lives}: no assistant in {missing} within {SERVED_WITHIN:g} s")

    async def _until_it_listens(self) -> None:
        async def is_live() -> bool:
            return await self._load.get("/livez") == 200

        await until(is_live, START_WITHIN)

    def _begin(self, kind: str | None, program: Sequence[str]) -> Unread:
        output = self._folder / "output"
        if kind is not None:
            return Unread(kind, program, cwd=ROOT, output=output)
        port = free_port()
        closed = ["sh", "-c", f'exec "$@" --port {port} 2>&-', "sh", *program]
        return Unread("gone", closed, cwd=ROOT, output=output, url=f"http://127.0.0.1:{port}/")

    async def _end(self, process: Unread, *, blocked: bool) -> None:
        name, code, within = ("the watchdog", EXIT_CODE, TTL + END_WITHIN) if blocked else ("SIGTERM", 0, END_WITHIN)
        began = time.monotonic()
        process.popen.send_signal(BLOCK if blocked else signal.SIGTERM)
        await until(lambda: process.popen.poll() is not None, SERVED_WITHIN)
        took = time.monotonic() - began
        self.ends[name].append(took)
        if process.popen.returncode != code or took > within:
            self.problems.append(f"{name}: it ended with {process.popen.returncode} after {took:.1f} s")

    async def _end_read(self, process: Unread, answers: int, sent: Set[str]) -> None:
        """End it while its log is read again, which must contain every line or its count.

        A delivery's line is written with its decision, so what was pending at the end has none.
        """
        reading = asyncio.create_task(asyncio.to_thread(process.read_on))
        await self._end(process, blocked=False)
        log = await reading
        lines, dropped = log.count('"answer": '), sum(int(number) for number in DROPPED.findall(log))
        self.counted += dropped
        async with viewing(self._receivers.url) as view:
            pending = sum(record.state is State.PENDING for record in await view.of(sent))
        if lines + dropped + pending < answers:
            seen = f"{lines} lines, {dropped} counted as dropped and {pending} pending"
            self.problems.append(f"{answers} answers, but {seen}")

    async def _check(self) -> None:
        """Check the answers, and what a last receiver finds in the store."""
        receiver = await self._receivers.start()
        await receiver.listening()

        async def end(view: View) -> None:
            rooms, served = await rooms_served(view, self._load, self._ticks, SERVED_WITHIN)
            self.problems += [f"no assistant in {room}" for room in sorted(rooms - served)]
            await receiver.stop()

        evidence = await self._receivers.evidence(self._load, end, late_takeovers=self._late_takeovers)
        self.overlaps = len(self._ticks.overlaps())
        self.problems += in_words(check(evidence)) + found(self.overlaps, "overlapping ticks")

    async def close(self) -> None:
        await self._receivers.close()
        self._load.close()


def _result(cells: Sequence[_Cell], rate: float) -> Result:
    of = defaultdict[str, _Answers](_Answers)
    for cell in cells:
        for fault, answers in cell.of.items():
            of[fault].add(answers)
    with_reader = of.pop(READ).p99
    problems = [problem for cell in cells for problem in cell.problems]
    figures: Figures = {
        "receivers at a time": len(cells),
        "deliveries a second to each": rate,
        "a log that is read: p99 (ms)": round(with_reader * 1000, 1),
    }
    for fault, answers in of.items():
        others = [answer.status for answer in answers.all if answer.status != 200]
        if others:
            problems.append(f"{fault}: {len(others)} answers were {sorted(set(others))}")
        if answers.p99 > with_reader + P99_MORE:
            problems.append(f"{fault}: p99 was {answers.p99:.3f} s, with a reader {with_reader:.3f} s")
        figures |= {
            f"{fault}: deliveries": len(answers.all),
            f"{fault}: answers other than 200": len(others),
            f"{fault}: p99 (ms)": round(answers.p99 * 1000, 1),
        }
    figures["lines dropped, and counted"] = sum(cell.counted for cell in cells)
    for name in cells[0].ends:
        if seconds := [each for cell in cells for each in cell.ends[name]]:
            figures[f"ended by {name} after, at most (s)"] = round(max(seconds), 2)
    figures["overlaps"] = sum(cell.overlaps for cell in cells)
    return Result(figures, problems)
