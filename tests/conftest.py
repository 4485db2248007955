"""What every test shares."""

import pytest
from hypothesis import settings

# A busy machine is no bug: a property is judged by what it finds, not by how long an example took.
settings.register_profile("whereby-trigger", deadline=None, print_blob=True)
settings.load_profile("whereby-trigger")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
