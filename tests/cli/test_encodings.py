"""Every command prints its output even if the terminal, or the file, has no character for some of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import clean_environment, run
from whereby_trigger.store import Arrival, State
from whereby_trigger.store.factory import store_for
from whereby_trigger.testing import webhook

ASCII, LATIN, C = {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}
ENCODINGS = pytest.mark.parametrize(
    "env", [ASCII, LATIN, C | {"PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii:strict"}], ids=str
)

CHECKS = """
import importlib, sys
from whereby_trigger.cli import main
from whereby_trigger.cli.demo import conclude

def run(store):
    conclude({"It came": (1, 1), "It left": (1, 2)}, 1.0)
    return 0

importlib.import_module("whereby_trigger.cli.demo").run = run
sys.argv[1:] = ["demo"]
main()
"""


@pytest.fixture
async def store(tmp_path: Path) -> str:
    """Return a store with one webhook of a person whose name has an emoji."""
    url = f"sqlite:///{tmp_path}/whereby-trigger.db"
    opened = store_for(url)
    await opened.open(lambda: None)
    body = webhook("room.client.joined", id="a1", display_name="Zo\N{GRINNING FACE}").raw
    await opened.add(Arrival("a1", "room.client.joined ✓", None, body, 0.0, State.QUARANTINED, "odd ✓"))
    await opened.close()
    return url


@pytest.mark.anyio
@ENCODINGS
async def test_what_cannot_be_encoded_is_replaced(store: str, tmp_path: Path, env: dict[str, str]) -> None:
    for command in (["list"], ["show", "a1"], ["list", "--json"]):
        shown = run("events", *command, "--store", store, cwd=tmp_path, env=env)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "a1" in shown.stdout
    refused = run("events", "show", "✓", "--store", store, cwd=tmp_path, env=env)
    assert refused.returncode in (1, 2)
    assert refused.stderr.startswith("Error: ")


@ENCODINGS
def test_the_checks_of_the_demo_tell_passed_from_failed(tmp_path: Path, env: dict[str, str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", CHECKS],
        cwd=tmp_path,
        env=clean_environment(env),
        capture_output=True,
        check=False,
    )
    assert (shown.returncode, shown.stderr.decode()) == (0, "")
    lines = [line.split() for line in shown.stdout.decode(errors="replace").splitlines()]
    (passed,), (failed,) = ([line[0] for line in lines if line[1:] == sentence] for sentence in CAME_AND_LEFT)
    assert passed != failed


CAME_AND_LEFT = ["It", "came"], ["It", "left"]
