"""A test's own connection to PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """Connect for an `async with` block, without a store."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
