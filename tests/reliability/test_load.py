"""The sender does what Whereby does, so it finds what Whereby would find."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from reliability.corpus import Item, items
from reliability.load import DUPLICATES, REORDER_WITHIN, Load, as_whereby_delivers
from tests.support.serving import serving
from whereby_trigger.store import State

pytestmark = pytest.mark.anyio

ITEM = Item("id", "room.client.joined", "/visit-1", b"{}", State.FIRED)
HANG_UP = 0


@asynccontextmanager
async def answering(*statuses: int) -> AsyncIterator[int]:
    """Serve the given answers one after the other, closing the connection for a status of 0; yield the port."""
    left = iter(statuses)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n{}")
            status = next(left)
            if status == HANG_UP:
                break
            writer.write(b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % status)

    async with serving(serve) as port:
        yield port


async def answers_to(tmp_path: Path, *statuses: int, proxied: bool = False) -> tuple[list[int], Counter[str]]:
    """Deliver one webhook to a server that gives these answers; return the answers seen and the ledger."""
    load = Load(tmp_path, seed=1, proxied=proxied)
    try:
        async with answering(*statuses) as load.port:
            await load.deliver(ITEM)
    finally:
        load.close()
    return sorted(load.answers.elements()), load.acknowledged()


@pytest.mark.parametrize(
    ("statuses", "seen", "acknowledged"),
    [
        ([200], [200], 1),
        ([503, 200], [200, 503], 1),
        ([500, 502, 503, 200], [500, 502, 503], 0),
        ([401, 200], [401], 0),
        ([413, 200], [413], 0),
        ([HANG_UP, 200], [0], 0),
    ],
)
async def test_a_5xx_is_retried_twice_and_nothing_else(
    tmp_path: Path, statuses: list[int], seen: list[int], acknowledged: int
) -> None:
    assert await answers_to(tmp_path, *statuses) == (seen, Counter({"id": acknowledged} if acknowledged else {}))


async def test_behind_a_proxy_a_lost_connection_is_a_502_and_retried(tmp_path: Path) -> None:
    seen, acknowledged = await answers_to(tmp_path, HANG_UP, 200, proxied=True)
    assert seen == [200, 502]
    assert acknowledged == {"id": 1}


def test_every_webhook_is_delivered_some_twice_none_far_from_its_place() -> None:
    sent = list(islice(items(1), 500))
    delivered = list(as_whereby_delivers(iter(sent), seed=1))
    counts = Counter(item.id for item in delivered)
    assert counts.keys() == {item.id for item in sent}
    assert 0.5 * DUPLICATES < (len(delivered) - len(sent)) / len(delivered) < 2 * DUPLICATES

    first = list(dict.fromkeys(item.id for item in delivered))
    moved = [first.index(item.id) - place for place, item in enumerate(sent)]
    assert any(moved)
    assert min(moved) > -REORDER_WITHIN
