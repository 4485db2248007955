"""The command line: `whereby-trigger COMMAND`."""

import sys

import click

from whereby_trigger.cli.assistants import assistants
from whereby_trigger.cli.backtest import backtest
from whereby_trigger.cli.check import check
from whereby_trigger.cli.config import config
from whereby_trigger.cli.db import db
from whereby_trigger.cli.dev import dev
from whereby_trigger.cli.events import events
from whereby_trigger.cli.forget import forget_command
from whereby_trigger.cli.inspect import inspect
from whereby_trigger.cli.output import (
    INTERRUPTED,
    drop_unwritten_output,
    escape_what_cannot_be_encoded,
    show_error,
)
from whereby_trigger.cli.refusals import refusals
from whereby_trigger.cli.rooms import rooms
from whereby_trigger.cli.send import send
from whereby_trigger.cli.simulate import simulate
from whereby_trigger.cli.start import start
from whereby_trigger.errors import TriggerError
from whereby_trigger.stderr import fill_closed_descriptors

NAME = "whereby-trigger"

BARE: tuple[type[click.UsageError], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))
"""What click raises for a bare group from 8.2 on; before, it printed the help."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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


COMMANDS = (
    *(dev, start, send, simulate, backtest, events, rooms, assistants, refusals, inspect, check, config, db),
    forget_command,
)
for command in COMMANDS:
    commands.add_command(command)


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
