"""What the docs show works: their programs run, their commands exist, their links lead somewhere."""

import re
import shlex
import sqlite3
import sys
import tomllib
from pathlib import Path

import click
import pytest

from tests.support.markdown import Page
from tests.support.process import Process, whereby_trigger
from tests.support.whereby import SECRET, deliver
from whereby_trigger.cli import commands
from whereby_trigger.store import FIRST_STATES, ROOM_TRANSITIONS, TRANSITIONS, RoomState, State
from whereby_trigger.testing import webhook

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
FOLDERS = (ROOT, ROOT / "deploy", ROOT / "docs", EXAMPLES)
PAGES = [Page(path) for folder in FOLDERS for path in sorted(folder.glob("*.md"))]
# An assistant may stay during a whole drain.
ENVIRONMENT = {"WHEREBY_TRIGGER_DRAIN_TIMEOUT": "0"}
WITHIN = 60.0


def name(page: Page) -> str:
    return page.path.relative_to(ROOT).as_posix()


def file_of(code: str, number: int) -> str:
    """Return the file name in a program's first line, or a generic one if there is none."""
    first = code.partition("\n")[0]
    return first.removeprefix("# ") if first.startswith("# ") and first.endswith(".py") else f"program_{number}.py"


WITH_PROGRAMS = [page for page in PAGES if page.blocks("python")]


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name)
def test_every_program_of_a_page_runs(page: Page, tmp_path: Path) -> None:
    """Run them in order, in one otherwise empty folder: a user who pastes one has no file of ours beside it.

    One that serves gets a delivery, a test passes, another runs to its end. The tests run in one pytest, once the
    files that they import are there.
    """
    # The page on the store assumes that there is one.
    sqlite3.connect(tmp_path / "whereby-trigger.db").close()
    tests: list[str] = []
    for number, block in enumerate(page.blocks("python")):
        file = tmp_path / file_of(block.code, number)
        assert not file.exists(), f"{file.name} is twice on the page: the tests before would run with the second"
        file.write_text(block.code)
        if ".start()" in block.code:
            serve(file)
        elif file.name.startswith("test_"):
            tests.append(file.name)
        else:
            run(file.name, cwd=tmp_path)
    if tests:
        run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=tmp_path)


def serve(program: Path) -> None:
    command = whereby_trigger("start", program.name, "--port", "0")
    with Process(command, cwd=program.parent, env=ENVIRONMENT | {"WHEREBY_WEBHOOK_SECRET": SECRET}) as server:
        joined = webhook("room.client.joined")
        assert deliver(f"http://127.0.0.1:{server.port()}/", joined).status == 200
        assert '"fired"' in server.line(joined.id)
        assert server.stop() == 0, server.output


def run(*arguments: str, cwd: Path) -> None:
    with Process([sys.executable, "-W", "error", *arguments], cwd=cwd, env=ENVIRONMENT) as program:
        assert program.wait(WITHIN) == 0, program.output


COMMANDS = [
    (page, line.removeprefix("$ "))
    for page in PAGES
    for block in page.blocks("console")
    for line in block.code.splitlines()
    if line.startswith("$ ") and "whereby-trigger " in line
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_every_command_of_the_docs_is_one_of_the_command_line(page: Page, line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("whereby-trigger") + 1 :]
    command: click.Command = commands
    context = click.Context(commands, info_name="whereby-trigger")
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"{name(page)}: there is no command {words[0]!r}"
        command, words = found, words[1:]
    command.make_context(command.name, list(words), parent=context)


LINKS = [(page, link) for page in PAGES for link in page.links()]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{name(page)}: {link}" for page, link in LINKS])
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page: Page, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.path.parent / path).resolve() if path else page.path
    assert target.exists()
    assert not anchor or anchor in Page(target).anchors()


def test_the_pages_show_the_examples_as_they_are() -> None:
    """What a page shows under a file's name is that file, without the docstring above it."""
    for page in PAGES:
        for block in page.blocks("python"):
            shown = EXAMPLES / file_of(block.code, 0)
            if shown.exists():
                docstring, _, program = shown.read_text().partition('"""\n\n')
                assert docstring.startswith('"""')
                assert block.code.partition("\n")[2] == program, f"{name(page)}:{block.line}"


def test_the_picture_of_the_readme_shows_every_state_and_only_moves_that_there_are() -> None:
    (picture,) = Page(ROOT / "README.md").blocks("mermaid")
    of_webhooks, _, rest = picture.code.partition("subgraph room")
    of_rooms = rest.partition("    end\n")[0]
    arrow = re.compile(r"^ +(\w+)(?:\(\(\w+\)\))? -->(?:\|[^|]+\|)? (\w+)", re.MULTILINE)
    webhooks = set(arrow.findall(of_webhooks))
    first = {(before, after) for before, after in webhooks if before == "stored"}
    assert {after for _, after in first} == FIRST_STATES
    assert {after for _, after in webhooks} == set(State)
    assert all(after in TRANSITIONS[State(before)] for before, after in webhooks - first)
    rooms = {(RoomState(before), RoomState(after.removeprefix("room_"))) for before, after in arrow.findall(of_rooms)}
    assert {state for move in rooms for state in move} == set(RoomState)
    assert all(after in ROOM_TRANSITIONS[before] for before, after in rooms)


CONTRIBUTING = Page(ROOT / "CONTRIBUTING.md")


def test_contributing_lists_the_layers_as_import_linter_holds_them() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["id"] == "layers")
    shown = next(block for block in CONTRIBUTING.blocks("") if block.code.startswith("__main__"))
    assert shown.code.splitlines() == [re.sub("[()]", "", layer) for layer in layers]


def test_contributing_says_what_every_module_of_the_package_is_for() -> None:
    listed = {name.partition("/")[0] for row in CONTRIBUTING.table("Where") for name in re.findall("`([^`]+)`", row[0])}
    package = {path.name for path in (ROOT / "src" / "whereby_trigger").iterdir()}
    assert listed == {name for name in package if name != "py.typed" and not name.startswith("__")}
