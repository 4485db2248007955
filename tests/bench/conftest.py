"""The benchmark's test setup: its own load generator in Python, this machine's cores, and tiny doses."""

import pytest

from bench import load, rounds
from bench.cores import share
from bench.sides import Setting
from bench.stores import Stores
from tests.support.postgres import shared_server


@pytest.fixture(autouse=True)
def a_busy_machine_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a longer backlog at the end of a load: many tests share this machine."""
    monkeypatch.setattr(rounds, "BACKLOG_WITHIN", 60.0)


@pytest.fixture
def setting() -> Setting:
    return Setting(share(), Stores(shared_server), load.closed_loop)
