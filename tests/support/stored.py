"""A store's contents, read beside the program that writes it."""

import asyncio

from whereby_trigger.store import Query, Record
from whereby_trigger.store.factory import store_for


def stored(url: str) -> list[Record]:
    """Read every stored webhook, oldest first, without creating or taking over anything."""
    return asyncio.run(records_in(url))


async def records_in(url: str) -> list[Record]:
    """Do the same in an event loop."""
    store = store_for(url)
    await store.open_readonly()
    try:
        return (await store.find(Query()))[::-1]
    finally:
        await store.close()
