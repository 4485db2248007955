"""What a store holds, read beside the program that writes it."""

import asyncio

from whereby_trigger.store import Query, Record
from whereby_trigger.stores import store_for


def stored(url: str) -> list[Record]:
    """Read every stored webhook, oldest first, without creating or taking over anything."""

    async def read() -> list[Record]:
        store = store_for(url)
        await store.peek()
        try:
            return await store.find(Query())
        finally:
            await store.close()

    return asyncio.run(read())[::-1]
