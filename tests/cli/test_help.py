"""The help of every command and group, on a terminal of 80 columns."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Call
from whereby_trigger import cli
from whereby_trigger.cli import commands

COLUMNS = 80


def paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of a command, and of each command below it."""
    yield path
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from paths(below, (*path, name))


def group_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = commands
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


@pytest.mark.parametrize("path", list(paths(commands)), ids=" ".join)
def test_no_line_of_a_commands_help_is_cut_or_wider_than_80_columns(call: Call, path: tuple[str, ...]) -> None:
    shown = call(*path, "--help", env={"COLUMNS": str(COLUMNS)})
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert [line for line in lines if line.rstrip().endswith("...") and "Usage" not in line] == []


@pytest.mark.parametrize("path", [path for path in paths(commands) if isinstance(group_at(path), click.Group)], ids=str)
def test_a_group_lists_each_command_on_one_line(call: Call, path: tuple[str, ...]) -> None:
    shown = call(*path, "--help", env={"COLUMNS": str(COLUMNS)})
    _, _, listed = shown.stdout.partition("Commands:\n")
    group = group_at(path)
    assert isinstance(group, click.Group)
    assert [line.split()[0] for line in listed.splitlines()] == sorted(group.commands)


@pytest.mark.parametrize("path", [path for path in paths(commands) if isinstance(group_at(path), click.Group)], ids=str)
def test_a_bare_group_prints_its_help_and_exits_0(call: Call, path: tuple[str, ...]) -> None:
    bare, asked = call(*path), call(*path, "--help")
    assert (bare.returncode, bare.stderr) == (0, "")
    assert bare.stdout == asked.stdout


def test_a_command_whose_module_fails_to_import_is_not_called_unknown(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("{}['a key that is missing']\n")
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    monkeypatch.setattr(commands, "commands", cli._Commands(broken="broken"))
    with pytest.raises(KeyError, match="a key that is missing"):
        call("broken")
    assert "No such command" in call("missing").stderr


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "whereby_trigger"]
    for arguments in ([], ["--version"]):
        ended = subprocess.run([*program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "whereby-trigger" in ended.stdout
