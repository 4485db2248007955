"""Output that cannot be written is reported once, with exit code 1, by each command; a reader that leaves is fine."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.arrivals import decided
from tests.support.process import COMMAND, clean_environment
from tests.support.programs import HUMANS_JOIN, write
from whereby_trigger.store.sqlite import SqliteStore

FULL = Path("/dev/full")
only_where_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no file that is always full")
LOST = "Error: cannot write to standard output, so the output is lost: No space left on device\n"
COMMANDS = [
    "--help",
    "--version",
    "assistants start https://acme.whereby.com/visit-1",
    "check",
    "config --json",
    "db migrate",
    "db prune --yes --older-than 1",
    "demo",
    "events list",
    "events list --json",
    "events replay some-id",
    "events show some-id",
    "send --help",
]


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Create a folder with a program and a store with one webhook."""
    write(tmp_path, HUMANS_JOIN)
    store = SqliteStore(f"sqlite:///{tmp_path}/whereby-trigger.db")
    await store.open(lambda: None)
    await decided(store, "some-id")
    await store.close()
    return tmp_path


def ended(
    folder: Path, command: str, stdout: int = subprocess.DEVNULL, *, how: str = 'exec "$@"', unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output buffered as usual unless a test sets something else."""
    return subprocess.run(
        ["sh", "-c", how, "sh", COMMAND, *command.split()],
        cwd=folder,
        env=clean_environment({"PYTHONUNBUFFERED": unbuffered}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@only_where_full
@pytest.mark.anyio
@pytest.mark.parametrize(("command", "unbuffered"), [*((command, "") for command in COMMANDS), ("config", "1")])
async def test_output_that_cannot_be_written_is_a_failure_in_one_line(
    folder: Path, command: str, unbuffered: str
) -> None:
    outcome = ended(folder, command, how='exec "$@" >/dev/full', unbuffered=unbuffered)
    assert (outcome.returncode, outcome.stderr) == (1, LOST)


@pytest.mark.parametrize("command", ["config", "demo"])
def test_a_reader_that_has_left_is_no_error_to_tell_of(tmp_path: Path, command: str) -> None:
    read, written = os.pipe()
    os.close(read)
    outcome = ended(tmp_path, command, written)
    os.close(written)
    assert (outcome.returncode, outcome.stderr) == (1, "")


@pytest.mark.parametrize("streams", [">&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_from_the_start_is_done_without(tmp_path: Path, streams: str) -> None:
    outcome = ended(tmp_path, "config", how=f'exec "$@" {streams}')
    assert (outcome.returncode, outcome.stderr) == (0, "")


@only_where_full
def test_an_error_that_cannot_be_told_keeps_its_exit_code(tmp_path: Path) -> None:
    assert ended(tmp_path, "strat", how='exec "$@" 2>/dev/full').returncode == 2
