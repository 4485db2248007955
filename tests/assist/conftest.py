"""Shared fixtures of the tests of assistants: where they are seen, and what they run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.presence import Presence
from whereby_trigger.assist.process import GUARD

BY_GROUP = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("guard", {path!r})
guard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(guard)
guard.prctl = lambda *_: False
guard.main(sys.argv[1:])
"""


@pytest.fixture
def presence(tmp_path: Path) -> Iterator[Presence]:
    with Presence(tmp_path / "presence") as presence:
        yield presence


@pytest.fixture
def guard_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the guard of platforms on which no orphans come to it."""
    path = tmp_path / "guard_by_group.py"
    path.write_text(BY_GROUP.format(path=str(GUARD)))
    monkeypatch.setattr("whereby_trigger.assist.process.GUARD", path)


@pytest.fixture(params=["adopting", "by group"])
def either_guard(request: pytest.FixtureRequest) -> None:
    """Run a test with the guard of Linux, and with that of other platforms."""
    if request.param == "by group":
        request.getfixturevalue("guard_by_group")
    elif sys.platform != "linux":
        pytest.skip("only Linux gives a guard the orphans below it")
