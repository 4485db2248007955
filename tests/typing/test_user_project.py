"""A strict type checker accepts a sensible user program, and reports each mistake to its author."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.typing import mistakes, user_project
from tests.typing.mistakes import MISTAKES, Mistake

ERROR = re.compile(r"^(\w+)\.py:(\d+): error: (.*)$", re.MULTILINE)

Errors = dict[str, list[tuple[int, str]]]


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """Check a folder that knows nothing of this one, against the installed package."""
    folder = tmp_path_factory.mktemp("a-user's-project")
    shutil.copy(user_project.__file__, folder / "user_project.py")
    for mistake in MISTAKES:
        (folder / f"{mistake.name}.py").write_text(mistakes.HEAD + mistake.lines + "\n")
    (folder / "unseen.py").write_text(mistakes.HEAD + mistakes.UNSEEN + "\n")
    files = sorted(path.name for path in folder.glob("*.py"))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache"), *files]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    run = subprocess.run(mypy, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    found: Errors = {}
    for module, line, message in ERROR.findall(run.stdout):
        found.setdefault(module, []).append((int(line), message))
    return found


def test_a_program_in_every_shape_the_api_takes_is_type_correct(errors: Errors) -> None:
    assert errors.get("user_project", []) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_reported_in_the_line_it_was_made(mistake: Mistake, errors: Errors) -> None:
    reported = errors.get(mistake.name, [])
    assert any(mistake.message in message for _, message in reported), reported
    assert all(line > mistakes.HEAD.count("\n") for line, _ in reported)


def test_the_one_mistake_that_is_documented_as_unseen_still_is(errors: Errors) -> None:
    assert errors.get("unseen", []) == []


def test_a_registered_function_is_still_the_function_it_was() -> None:
    assert user_project.the_functions_are_what_they_were() == "True  started mine"


@pytest.mark.anyio
async def test_what_the_checker_let_pass_also_runs() -> None:
    said = await user_project.exercise()
    assert said == "fired predicate a_host returned True True True 2"
