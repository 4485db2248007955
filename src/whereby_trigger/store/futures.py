"""The futures that stores return, and what to do with one that nobody awaits."""

import asyncio
from typing import Any

from whereby_trigger.errors import StoreUnavailable


class Write(asyncio.Future[Any]):
    """Resolve to the outcome of a write; `held_up` is True while another transaction has locked its row."""

    held_up = False


def refused(why: str) -> "asyncio.Future[Any]":
    """Return a future that has failed with StoreUnavailable."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(StoreUnavailable(why))
    return future


def ignore_result(written: "asyncio.Future[Any]") -> None:
    """Retrieve the outcome of a future that nobody awaits: asyncio would log its error, with the values in it."""
    if not written.cancelled():
        written.exception()
