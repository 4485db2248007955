"""A connection of a test's own to a PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Connect for as long as an `async with` block, past every store."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
