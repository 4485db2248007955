"""The pytest plugin: it costs nothing unless it is used, and works with each way to run async tests."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WITHIN = 300.0
"""Seconds in which a few interpreters have started and run some tests, however busy the machine is."""

PROGRAM = """
from whereby_trigger import Presence, RoomClientJoined, Session, Trigger

trigger = Trigger()


@trigger.when("room.client.joined", hold=30)
def two_people(webhook: RoomClientJoined, presence: Presence) -> bool:
    return presence.humans is not None and presence.humans >= 2


@trigger.assistant
async def scribe(session: Session) -> None:
    await session.ended
"""
VISIT = """
async def visit(trigger_testing, whereby, number):
    async with trigger_testing(trigger) as t:
        meeting = whereby.meeting(f"/visit-{number}")
        assert (await t.deliver(meeting.join("host"))).state == "skipped"
        assert (await t.deliver(meeting.join("visitor"))).state == "held"
        await t.advance(30)
        assert [start.reason for start in t.assistants] == ["predicate two_people returned True for 30 s"]
"""
RUNNERS = {
    "anyio": """
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
{numbered}
async def test_a_visit(number, trigger_testing, whereby, anyio_backend):
    await visit(trigger_testing, whereby, number)
""",
    "pytest_asyncio": """
@pytest.mark.asyncio
{numbered}
async def test_a_visit(number, trigger_testing, whereby):
    await visit(trigger_testing, whereby, number)
""",
    "asyncio": """
{numbered}
def test_a_visit(number, trigger_testing, whereby):
    asyncio.run(visit(trigger_testing, whereby, number))
""",
}


def project(folder: Path, test: str, tests: int) -> None:
    """Write a user's files: a program, and its tests."""
    (folder / "program.py").write_text(PROGRAM)
    numbered = f'@pytest.mark.parametrize("number", range({tests}))'
    head = "import asyncio\n\nimport pytest\nfrom program import trigger\n"
    (folder / "test_program.py").write_text(head + VISIT + test.format(numbered=numbered))


QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-q")


def run_pytest(folder: Path, *options: str) -> str:
    """Run a project's tests in a separate process; return what pytest printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-W", "error", "-m", "pytest", *QUIET, *options]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_fixtures_work_however_a_project_runs_its_async_tests(runner: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(runner) is None:
        pytest.skip(f"{runner} is not installed")
    project(tmp_path, RUNNERS[runner], 2)
    # pytest-asyncio asks for it.
    options = ("-o", "asyncio_default_fixture_loop_scope=function") if runner == "pytest_asyncio" else ()
    done = run_pytest(tmp_path, *options)
    assert "2 passed" in done, done


def test_a_project_may_run_its_tests_in_several_processes(tmp_path: Path) -> None:
    project(tmp_path, RUNNERS["anyio"], 8)
    done = run_pytest(tmp_path, "-n", "2")
    assert "8 passed" in done, done


def test_a_hundred_tests_take_under_3_s(tmp_path: Path) -> None:
    """In CPU time, from the start of pytest to its end. Other processes take caches and cycles from it."""
    project(tmp_path, RUNNERS["anyio"], 100)

    def take(command: list[str]) -> float:
        before = os.times()
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WITHIN, check=True)
        after = os.times()
        assert "passed" in done.stdout or "-c" in command, done.stdout
        return after.children_user + after.children_system - before.children_user - before.children_system

    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    asyncio = [sys.executable, "-c", "import asyncio"]
    taken: list[tuple[float, float]] = []
    while not taken or (len(taken) < 5 and not _is_quick(*taken[-1])):
        taken.append((take(suite), take(asyncio)))
    assert any(_is_quick(*both) for both in taken), taken


def _is_quick(suite: float, asyncio: float) -> bool:
    # The start of an interpreter with asyncio takes 0.06 s on an idle machine.
    return suite < max(3.0, 50 * asyncio)


def test_a_failed_assertion_shows_the_timeline_in_pytests_report(tmp_path: Path) -> None:
    project(tmp_path, RUNNERS["anyio"].replace("await visit", "with pytest.raises(OSError): await visit"), 1)
    program = tmp_path / "test_program.py"
    program.write_text(program.read_text().replace("t.advance(30)", "t.advance(20)"))
    done = run_pytest(tmp_path)
    assert "1 failed" in done
    assert "What happened, by the clock of the test, which shows 20." in done
    assert re.search(r"room\.client\.joined \S+ \(visitor: 2 humans, 0 bots\)", done)


def test_a_run_of_pytest_that_does_not_use_the_plugin_imports_nothing_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    (tmp_path / "conftest.py").write_text(
        "import sys\n\n\ndef pytest_unconfigure():\n"
        "    found = [name for name in sys.modules if name.startswith(('whereby', 'pytest_whereby', 'msgspec'))]\n"
        "    print('IMPORTED', *found)\n"
    )
    done = run_pytest(tmp_path, "-s")
    assert "1 passed" in done, done
    assert "IMPORTED pytest_whereby_trigger\n" in done
