"""A trigger that can be mounted, and calls of its listeners."""

from pathlib import Path
from queue import Queue

import pytest

from tests.support.whereby import SECRET
from whereby_trigger import TRIGGER_EVENT_SUCCESS, Trigger, TriggerSuccess, is_human


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/webhooks.db"


@pytest.fixture
def heard() -> "Queue[TriggerSuccess]":
    return Queue()


@pytest.fixture
def trigger(url: str, heard: "Queue[TriggerSuccess]") -> Trigger:
    trigger = Trigger(webhook_triggers={"room.client.joined": is_human}, secret=SECRET, store=url)
    trigger.on(TRIGGER_EVENT_SUCCESS, heard.put)
    return trigger
