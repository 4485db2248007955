"""A trigger behind a port, with its own store."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.receiver import Receiver
from whereby_trigger import Trigger, logs


@pytest.fixture
def trigger() -> Trigger:
    """Build a trigger that fires for everybody who joins."""
    return Trigger(webhook_triggers={"room.client.joined": lambda: True})


@pytest.fixture
async def receiver(tmp_path: Path, trigger: Trigger) -> AsyncIterator[Receiver]:
    async with Receiver(tmp_path, trigger) as receiver:
        yield receiver


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields that a record has in addition to those of logging."""
    return {name: record.__dict__[name] for name in logs.FIELDS if name in record.__dict__}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return everything logged by us, the server and asyncio, as it would be printed, with tracebacks."""
    caplog.set_level(logging.INFO)

    def text() -> str:
        formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")
        return "\n".join(f"{formatter.format(record)} {fields_of(record)}" for record in caplog.records)

    return text
