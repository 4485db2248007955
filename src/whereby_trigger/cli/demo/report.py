"""The output of the demo on a terminal."""

import shutil
import sys
import textwrap
from collections.abc import Sequence

import click

from whereby_trigger.cli.demo.checks import AssistantRun, Check, Sent
from whereby_trigger.cli.rooms import show_timeline
from whereby_trigger.timeline import Timeline

MARKS, ASCII_MARKS = ("✓", "✗"), ("+", "-")


def show_event(text: str) -> None:
    """Print what happened to a server or the database."""
    click.secho(text, bold=True)


def show_sent(sent: Sent, milliseconds: float) -> None:
    """Print a delivery and its answer."""
    answer = click.style(str(sent.answer), fg="green" if sent.answer == 200 else "red")
    told = f"  {sent.step.happening:46} {answer} {milliseconds:5.1f} ms"
    click.echo(f"{told}  {click.style(sent.step.oddity, fg='magenta')}" if sent.step.oddity else told)


def show_start(run: AssistantRun, seconds: float) -> None:
    """Print that an assistant started in a room, and how many seconds after the last event."""
    click.echo(f"  replica {run.replica} starts an assistant in {run.room:11} {seconds:8.2f} s later")


def show_room(room: Timeline) -> None:
    """Print what `rooms show` says of a room."""
    show_event(f"\n$ whereby-trigger rooms show {room.key}")
    show_timeline(room)


def conclude(checks: Sequence[Check], seconds: float) -> int:
    """Print the checks, with what was expected of each that failed; return the exit code."""
    passed_mark, failed_mark = MARKS if _can_print("".join(MARKS)) else ASCII_MARKS
    click.echo("\nChecks")
    for check in checks:
        mark = click.style(passed_mark, fg="green") if check.passed else click.style(failed_mark, fg="red")
        width = shutil.get_terminal_size().columns - 4 if sys.stdout.isatty() else len(check.sentence)
        click.echo(f"  {mark} " + "\n    ".join(textwrap.wrap(check.sentence, width)))
        if not check.passed:
            click.echo(f"      expected {check.expected}\n      actual   {check.actual}")
    failed = sum(not check.passed for check in checks)
    result = f"{failed} of {len(checks)} checks failed" if failed else f"All {len(checks)} checks passed"
    click.echo("\n" + click.style(result, fg="red" if failed else "green", bold=True) + f" in {seconds:.1f} s\n")
    return 1 if failed else 0


def show_next_command() -> None:
    """Print what to try next."""
    click.echo("Try it with a trigger of your own, in app.py, and with simulated meetings:")
    click.echo("  whereby-trigger dev\n  whereby-trigger simulate   (in another terminal)")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
