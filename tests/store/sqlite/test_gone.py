"""A file that is deleted, moved or replaced while in use: nothing more is acknowledged that would be lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.arrivals import NOW, arrival, decision
from whereby_trigger.errors import StoreUnavailable
from whereby_trigger.store import Query, Store

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running(unopened: Store) -> AsyncIterator[Store]:
    await unopened.open(lambda: None)
    yield unopened
    await unopened.close()


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replace(path: Path) -> None:
    path.unlink()
    path.touch()


@pytest.mark.parametrize("remove", [delete, move, replace])
async def test_nothing_is_written_to_a_file_that_is_there_no_longer(
    running: Store, path: Path, remove: Callable[[Path], None]
) -> None:
    await running.add(arrival("before"))
    remove(path)
    for write in (running.add(arrival("after")), running.ping(NOW), running.take_over(), running.renew(30)):
        with pytest.raises(StoreUnavailable, match=rf"takes no writes now: {path} was .* while it was in use: put it"):
            await write


async def test_a_file_that_is_put_back_is_written_to_again(running: Store, path: Path) -> None:
    added = await running.add(arrival("before"))
    path.rename(path.with_name("elsewhere.db"))
    deciding = asyncio.ensure_future(running.decide(decision(added.seq, "before")))
    with pytest.raises(StoreUnavailable):
        await running.add(arrival("during"))
    assert not deciding.done()
    path.with_name("elsewhere.db").rename(path)
    assert await deciding
    assert not (await running.add(arrival("during"))).duplicate
    assert len(await running.find(Query())) == 2
