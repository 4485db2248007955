"""What the benchmark is tried out with: its own load generator in Python, this machine's cores, and tiny doses."""

from collections.abc import Iterator

import pytest

from bench import closed_loop
from bench.cores import share
from bench.setting import Setting
from bench.stores import Stores


@pytest.fixture
def setting() -> Iterator[Setting]:
    with Stores() as stores:
        yield Setting(share(), stores, closed_loop.send)
