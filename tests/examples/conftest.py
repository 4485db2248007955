"""What runs an example: its process, its store, and the assistants it starts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.examples.assistants import Assistants
from tests.support.process import Process, whereby_trigger
from tests.support.whereby import SECRET

EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[..., Process]
Start = Callable[[str], tuple[Process, str]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/webhooks.db"


@pytest.fixture
def assistants() -> Iterator[Assistants]:
    with Assistants() as assistants:
        yield assistants


@pytest.fixture
def run(tmp_path: Path, store: str, assistants: Assistants) -> Iterator[Run]:
    """Start a program with all that an example reads from the environment; it is gone when the test is over."""
    environment = {
        "ASSISTANT": assistants.command,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(EXAMPLES),
        "WHEREBY_TRIGGER_STORE": store,
        "WHEREBY_WEBHOOK_SECRET": SECRET,
    }
    with ExitStack() as stack:

        def start(*program: str, **env: str) -> Process:
            # An example prints a line in several pieces, and the log may come between them.
            return stack.enter_context(Process(list(program), cwd=tmp_path, env=environment | env, apart=True))

        yield start


@pytest.fixture
def start(run: Run) -> Start:
    """Start an example from the command line, on a free port; return its process and its URL."""

    def start(name: str) -> tuple[Process, str]:
        process = run(*whereby_trigger("start", str(EXAMPLES / name), "--port", "0"))
        return process, f"http://127.0.0.1:{process.port()}/"

    return start
