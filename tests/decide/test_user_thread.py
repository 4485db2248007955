"""Sync user code runs in one thread, in order; a call that hangs is abandoned, and nothing else with it."""

import asyncio
import threading
import time

import pytest

from tests.support.until import eventually
from whereby_trigger.decide.user_code import MAX_HUNG, CallResult, LeftBehind, UserThread

pytestmark = pytest.mark.anyio


async def test_calls_run_one_at_a_time_in_the_order_they_were_made_in() -> None:
    thread = UserThread(limit=30)
    order: list[int] = []
    threads = set()

    def note(number: int) -> int:
        threads.add(threading.get_ident())
        order.append(number)
        return number

    outcomes = await asyncio.gather(*(thread.run(note, number) for number in range(500)))
    thread.close()
    assert order == [outcome.value for outcome in outcomes] == list(range(500))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_call_that_is_to_be_next_goes_before_those_that_wait() -> None:
    thread = UserThread(limit=30)
    begun, go = threading.Event(), threading.Event()
    order: list[str] = []

    def hold() -> None:
        begun.set()
        go.wait()

    running = thread.run(hold)
    await eventually(begun.is_set)
    waiting = [thread.run(order.append, name) for name in ("first", "second")]
    next = thread.run_next(order.append, "next")
    go.set()
    await asyncio.gather(running, next, *waiting)
    thread.close()
    assert order == ["next", "first", "second"]


async def test_a_call_made_by_the_outcome_of_another_runs_too() -> None:
    thread = UserThread(limit=30)
    for number in range(300):
        assert await thread.run(lambda number=number: number) == CallResult(number)
    thread.close()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
async def test_whatever_a_call_raises_is_its_outcome_and_the_thread_goes_on(error: type[BaseException]) -> None:
    thread = UserThread(limit=30)

    def fail() -> None:
        raise error

    assert isinstance((await thread.run(fail)).error, error)
    assert (await thread.run(lambda: "next")).value == "next"
    thread.close()


async def test_a_call_that_hangs_is_left_behind_at_the_limit_and_those_behind_it_run() -> None:
    thread = UserThread(limit=0.05)
    let_go, ended = threading.Event(), threading.Event()

    def hang() -> None:
        let_go.wait()
        ended.set()

    hanging = thread.run(hang)
    behind = [thread.run(lambda number=number: number) for number in range(3)]
    assert isinstance((await hanging).error, LeftBehind)
    assert [(await call).value for call in behind] == [0, 1, 2]
    let_go.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert (await thread.run(lambda: "after")).value == "after"
    thread.close()


async def test_a_call_that_hangs_with_none_behind_it_is_left_behind_at_the_limit() -> None:
    thread = UserThread(limit=0.05)
    let_go = threading.Event()
    assert (await thread.run(lambda: "quick")).value == "quick"
    assert isinstance((await thread.run(let_go.wait)).error, LeftBehind)
    let_go.set()
    thread.close()


async def test_every_call_that_hangs_is_left_behind_in_its_turn() -> None:
    thread = UserThread(limit=0.02)
    let_go = threading.Event()
    hanging = [thread.run(let_go.wait) for _ in range(5)]
    outcomes = await asyncio.gather(*hanging)
    assert all(isinstance(outcome.error, LeftBehind) for outcome in outcomes)
    assert (await thread.run(lambda: "after")).value == "after"
    let_go.set()
    thread.close()


async def test_a_thread_that_cannot_be_started_is_tried_for_again_and_no_call_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.user_code.RETRY", 0.01)
    thread = UserThread(limit=0.05)
    let_go = threading.Event()
    hanging = thread.run(let_go.wait)
    behind = [thread.run(lambda number=number: number) for number in range(3)]
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", _refuse)
        assert isinstance((await hanging).error, LeftBehind)
        behind.append(thread.run(lambda: 3))
        assert thread.short.startswith("out of threads")
    assert [(await call).value for call in behind] == [0, 1, 2, 3]
    assert thread.short == ""
    let_go.set()
    thread.close()


async def test_beyond_so_many_calls_that_hang_the_others_wait_for_one_to_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("whereby_trigger.decide.user_code.RETRY", 0.01)
    thread = UserThread(limit=0.001)
    begun = set[threading.Thread]()
    let_go = threading.Event()

    def hang() -> None:
        begun.add(threading.current_thread())
        let_go.wait()

    hanging = [thread.run(hang) for _ in range(MAX_HUNG)]
    after = thread.run(lambda: "after")
    await asyncio.gather(*hanging)
    assert "16 calls hang" in thread.short
    assert "hang at test_user_thread.py" in thread.short
    assert len(begun) == MAX_HUNG == 16
    assert not after.done()
    let_go.set()
    assert (await after).value == "after"
    assert thread.short == ""
    thread.close()


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_calls_that_end_right_at_the_limit_are_neither_lost_nor_run_beside_each_other() -> None:
    limit = 0.002
    thread = UserThread(limit)
    spans: dict[int, tuple[float, float]] = {}

    def work(number: int) -> int:
        begin = time.perf_counter()
        while time.perf_counter() < begin + limit * (0.9 + number % 20 / 100):
            pass
        spans[number] = (begin, time.perf_counter())
        return number

    outcomes = await asyncio.wait_for(asyncio.gather(*(thread.run(work, number) for number in range(400))), 30)
    thread.close()
    await eventually(lambda: len(spans) == 400)
    ended = 0.0
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome.error, LeftBehind):
            continue
        begin, end = spans[number]
        assert outcome.value == number
        assert ended <= begin
        ended = end


async def test_a_call_that_nobody_waits_for_any_more_is_not_made() -> None:
    thread = UserThread(limit=30)
    let_go, made = threading.Event(), list[str]()
    first = thread.run(let_go.wait)
    dropped, last = thread.run(made.append, "dropped"), thread.run(made.append, "last")
    dropped.cancel()
    let_go.set()
    await asyncio.gather(first, last)
    thread.close()
    assert made == ["last"]


async def test_what_has_not_begun_is_dropped_when_the_thread_is_closed() -> None:
    thread = UserThread(limit=30)
    let_go, begun, ended = threading.Event(), threading.Event(), threading.Event()
    ran: list[str] = []

    def hold() -> None:
        begun.set()
        let_go.wait()
        ended.set()

    held = thread.run(hold)
    behind = thread.run(ran.append, "behind")
    await asyncio.to_thread(begun.wait)
    thread.close()
    let_go.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert behind.cancelled()
    assert (await held).error is None
    assert ran == []
