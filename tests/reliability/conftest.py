"""Every store that the harness knows."""

import pytest

from reliability.stores import STORES


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)
