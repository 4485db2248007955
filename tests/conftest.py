"""What every test shares."""

import os

import pytest
from hypothesis import settings

# A busy machine is no bug: a property is judged by what it finds, not by how long an example took.
settings.register_profile("whereby-trigger", deadline=None, print_blob=True)
settings.load_profile("whereby-trigger")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def settings_of_this_machine_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no test depend on what whoever runs it has set for a trigger of theirs."""
    for name in list(os.environ):
        if name.startswith("WHEREBY") or name == "PORT":
            monkeypatch.delenv(name)
