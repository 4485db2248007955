"""The test that users start from: it passes in an empty folder, and fails if the predicate is wrong."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, Run


@pytest.mark.parametrize(("mistake", "outcome"), [("", "2 passed"), ("is_human(webhook) and ", "1 failed, 1 passed")])
def test_it_passes_as_it_is_and_fails_without_is_human(mistake: str, outcome: str, tmp_path: Path, run: Run) -> None:
    shutil.copy(EXAMPLES / "test_my_trigger.py", tmp_path)
    program = (EXAMPLES / "my_trigger.py").read_text()
    assert mistake in program
    (tmp_path / "my_trigger.py").write_text(program.replace(mistake, "") if mistake else program)
    tests = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", PYTHONPATH="")
    assert tests.wait() == (1 if mistake else 0)
    assert outcome in tests.output
