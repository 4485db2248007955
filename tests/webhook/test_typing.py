"""A type checker narrows webhooks as the reference's mapped types do."""

import subprocess
import sys
from pathlib import Path

from tests.webhook import narrowing

SOURCE = Path(narrowing.__file__)
ROOT = SOURCE.parents[2]


def mypy(path: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_narrowing_promises_holds_at_run_time() -> None:
    assert narrowing.exercise() == ["host of 2", "no audio", "/visit-1", "clinic"]


def test_narrowing_holds_for_a_strict_type_checker_and_a_wrong_use_does_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    right = mypy(SOURCE, cache)
    assert right.returncode == 0, right.stdout + right.stderr

    wrong = tmp_path / "wrong.py"
    wrong.write_text(SOURCE.read_text().replace("event.data.error", "event.data.role_name"))
    refused = mypy(wrong, cache)
    assert refused.returncode == 1
    assert '"TranscriptionFailedData" has no attribute "role_name"' in refused.stdout
