"""`scripts/fresh_machines.sh` keeps the result of each case, and continues where an interrupted run stopped."""

import subprocess
from pathlib import Path

import pytest

from tests.support.process import clean_environment

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "fresh_machines.sh"


def table(folder: Path, *cases: str, args: str = "") -> subprocess.CompletedProcess[str]:
    env = clean_environment({"FRESH_MACHINES": str(folder), "ARGS": args})
    return subprocess.run([SCRIPT, *cases], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def commit() -> str:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: there is no commit to run")
    command = ["git", "rev-parse", "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()[:12]


def row(commit: str, case: str, test: str = "passed", args: str = "all") -> str:
    return f"{commit} {args}\t{case}\tpassed\t20 s\t{test}\t600 s\t9 passed in 1.00s\n"


def test_what_has_passed_is_not_run_again(tmp_path: Path, commit: str) -> None:
    (tmp_path / "results.tsv").write_text(row(commit, "trixie:user", "FAILED (2)") + row(commit, "trixie:user"))
    done = table(tmp_path, "trixie:user")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [
        *("trixie:user", "passed", "20", "s", "passed", "600", "s", "9", "passed", "in", "1.00s"),
    ]


@pytest.mark.parametrize("args", ["", "tests/store"])
def test_what_was_not_run_as_it_would_be_now_is_told_from_what_was(tmp_path: Path, commit: str, args: str) -> None:
    others = row("another", "trixie:user") + row(commit, "trixie:space", args="tests/webhook")
    (tmp_path / "results.tsv").write_text(others + row(commit, "bookworm:user", "FAILED (2)", args or "all"))
    done = table(tmp_path, "--table", "trixie:*", "bookworm:user", args=args)
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert [name for name, line in rows.items() if "not run" not in line] == ["bookworm:user"]
    assert "FAILED (2)" in rows["bookworm:user"]
    assert len(rows) == 6


def test_a_case_that_there_is_not_is_an_error(tmp_path: Path, commit: str) -> None:
    done = table(tmp_path, "bullseye:user")
    assert done.returncode == 2
    assert "there is no case bullseye:user: they are bookworm:root-0700" in done.stderr
