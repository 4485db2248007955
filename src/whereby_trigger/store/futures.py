"""The futures that a store answers with where there is nothing to wait for, or nobody who waits."""

import asyncio
from typing import Any

from whereby_trigger.errors import StoreUnavailable


class Write(asyncio.Future[Any]):
    """Resolve to the outcome of a write; `held_up` while somebody else has locked what it alone would change."""

    held_up = False


def refused(why: str) -> "asyncio.Future[Any]":
    """Answer a call with StoreUnavailable."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(StoreUnavailable(why))
    return future


def ignore_result(written: "asyncio.Future[Any]") -> None:
    """Take note of an outcome that nobody waits for: asyncio would log a failure, with what it holds."""
    if not written.cancelled():
        written.exception()
