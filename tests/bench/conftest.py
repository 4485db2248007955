"""What the benchmark is tried out with: its own load generator in Python, this machine's cores, and tiny doses."""

import pytest

from bench import closed_loop
from bench.cores import share
from bench.setting import Setting
from bench.stores import Stores
from tests.support.postgres import shared_server


@pytest.fixture
def setting() -> Setting:
    return Setting(share(), Stores(shared_server), closed_loop.send)
