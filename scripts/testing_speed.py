"""Measure a user's suite of 100 tests: `.venv/bin/python scripts/testing_speed.py [--tests N]`.

Each is a meeting in `trigger.testing()`. Runs pytest on them in a process of its own, with the plugins that such a
suite needs and none of the others that are installed here, and prints its seconds by the wall clock and of CPU. As
after an installation with pip, all modules are compiled before.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from whereby_trigger.config import inherited

SUITE = """
import pytest

from whereby_trigger import Session, Trigger, is_human

trigger = Trigger(webhook_triggers={"room.client.joined": is_human})


@trigger.assistant
async def scribe(session: Session) -> None:
    await session.ended


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(TESTS))
async def test_a_host_gets_an_assistant(number: int) -> None:
    async with trigger.testing() as t:
        meeting = t.meeting(f"/visit-{number}")
        assert (await meeting.join("assistant")).state == "skipped"
        assert (await meeting.join("host")).state == "fired"
        await t.advance(60)
        assert [start.room_url for start in t.assistants] == [f"https://acme.whereby.com/visit-{number}"]
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=100)
    tests = parser.parse_args().tests
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_suite.py").write_text(SUITE.replace("TESTS", str(tests)), encoding="utf-8")
        plugins = ("-p", "anyio", "-p", "pytest_whereby_trigger", "-p", "no:cacheprovider")
        command = [sys.executable, "-m", "pytest", "-q", *plugins, folder]
        compiled = {"PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled")}
        environment = inherited() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | compiled
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        subprocess.run([*command, "-k", "[0]"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
        began, before = time.monotonic(), os.times()
        code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{tests} tests: {wall:.1f} s, of them {cpu:.2f} s of CPU, {1000 * cpu / tests:.1f} ms a test")
    return code


if __name__ == "__main__":
    sys.exit(main())
