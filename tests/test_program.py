"""A standalone trigger: what it changes in the process, and what it leaves unchanged."""

import gc
import sys
from collections.abc import Iterator

import pytest

from whereby_trigger import process, threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before, turns_before = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*before)
    sys.setswitchinterval(turns_before)


@pytest.mark.parametrize(
    ("set_before", "while_it_runs"), [(700, process.COLLECT_AFTER), (1_000_000, 1_000_000), (0, 0)]
)
def test_garbage_is_collected_more_rarely_while_it_runs_unless_it_is_rare_already(
    set_before: int, while_it_runs: int
) -> None:
    async def serve() -> None:
        seen.append(gc.get_threshold()[0])

    seen: list[int] = []
    gc.set_threshold(set_before)
    process.run(serve())
    assert (seen, gc.get_threshold()[0]) == ([while_it_runs], set_before)


@pytest.mark.parametrize(("set_before", "while_it_runs"), [(0.005, threads.TURN), (0.0001, 0.0001)])
def test_no_thread_keeps_the_loop_and_the_store_from_running_for_5_ms(set_before: float, while_it_runs: float) -> None:
    """A predicate that only computes made each delivery wait for 100 ms."""

    async def serve() -> None:
        seen.append(sys.getswitchinterval())

    seen: list[float] = []
    sys.setswitchinterval(set_before)
    process.run(serve())
    assert [*seen, sys.getswitchinterval()] == pytest.approx([while_it_runs, set_before], rel=0.02)
