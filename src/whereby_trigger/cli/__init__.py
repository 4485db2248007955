"""The command line: `whereby-trigger COMMAND`."""

import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import click

from whereby_trigger.cli.output import (
    INTERRUPTED,
    drop_unwritten_output,
    escape_what_cannot_be_encoded,
    show_error,
)
from whereby_trigger.errors import TriggerError
from whereby_trigger.stderr import fill_closed_descriptors

NAME = "whereby-trigger"

BARE: tuple[type[click.UsageError], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))
"""What click raises for a bare group from 8.2 on; before, it printed the help."""


class _Commands(MutableMapping[str, click.Command]):
    """Hold the commands by name. One in another module is imported when it is called for.

    To import all of them takes a third of the time that the shortest command takes.
    """

    def __init__(self, **modules: str) -> None:
        self._modules = modules
        self._commands: dict[str, click.Command | None] = dict.fromkeys(modules)

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if command is None:
            command = getattr(import_module(f"whereby_trigger.cli.{self._modules[name]}"), name)
            assert isinstance(command, click.Command)  # noqa: S101 - it is of this package
            self._commands[name] = command
        return command

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    def get(self, name: str, default: Any = None) -> Any:
        # Mapping's own takes a KeyError that a command's module raises for a command that is not there.
        return self[name] if name in self else default  # noqa: SIM401

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


COMMANDS = _Commands(
    dev="serve",
    start="serve",
    send="send",
    simulate="simulate",
    backtest="backtest",
    events="events",
    rooms="rooms",
    assistants="assistants",
    refusals="refusals",
    inspect="serve",
    check="check",
    config="check",
    db="db",
    forget="db",
)
"""The modules of the commands, in the order of the help."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, commands=COMMANDS)
@click.version_option(package_name=NAME, prog_name=NAME)
def commands() -> None:
    """Run an assistant in each Whereby room that asks for one.

    APP is file.py or module:attribute; without it, app.py, main.py and trigger.py are tried.
    """


@commands.command(short_help="Run scripted meetings on real servers, and check the outcome.")
@click.option("--store", metavar="URL", help="Use this store, which must be empty. [default: new SQLite files]")
def demo(store: str | None) -> None:
    """Run scripted meetings on real servers, kill some of them in mid-meeting, and check the outcome."""
    from whereby_trigger.cli.demo import run

    raise click.exceptions.Exit(run(store))


def _called() -> int | None:
    """Call the command, and print the help of a group that is called without one."""
    try:
        code: int | None = commands.main(prog_name=NAME, standalone_mode=False)
    except BARE as error:
        click.echo(error.format_message())
        return 0
    return code


def main() -> None:
    """Run the command line; exit with 2 for a wrong call, and with 1 if it failed or its output was lost."""
    fill_closed_descriptors()
    escape_what_cannot_be_encoded()
    try:
        code = _called()
        sys.stdout.flush()
    except (click.ClickException, TriggerError, OSError) as error:
        code = show_error(error)
    except click.Abort:
        code = INTERRUPTED
    finally:
        drop_unwritten_output()
    sys.exit(code)
