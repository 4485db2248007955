"""A standalone trigger: what it changes in the process, and what it leaves unchanged."""

import gc
from collections.abc import Iterator

import pytest

from whereby_trigger import process


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


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
