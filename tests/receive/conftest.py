"""A trigger behind a port, on a store of its own."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.receiver import Receiver
from whereby_trigger import Trigger


@pytest.fixture
def trigger() -> Trigger:
    """Make a trigger that fires at everybody who joins."""
    return Trigger(webhook_triggers={"room.client.joined": lambda: True})


@pytest.fixture
async def receiver(tmp_path: Path, trigger: Trigger) -> AsyncIterator[Receiver]:
    async with Receiver(tmp_path, trigger) as receiver:
        yield receiver


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return all that we, the server and asyncio logged, as it would be printed, with tracebacks."""
    caplog.set_level(logging.INFO)

    def text() -> str:
        formatter = logging.Formatter("%(levelname)s %(name)s %(message)s %(delivery)s", defaults={"delivery": ""})
        return "\n".join(map(formatter.format, caplog.records))

    return text
