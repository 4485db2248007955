"""What commands over many rows share: they say what they would do, ask, show how far they are, and can be stopped."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from whereby_trigger.cli.output import note

PROGRESS_FROM = 2000
"""Rows from which on a terminal shows a progress bar."""

yes_option = click.option("--yes", is_flag=True, help="Do it without a question.")
rewrite_option = click.option(
    "--rewrite", is_flag=True, help="Write a large store's files again, which holds up deliveries meanwhile."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")

Advance = Callable[[int], None]


def webhooks_counted(count: int) -> str:
    """Return a number of webhooks in words."""
    return "1 webhook" if count == 1 else f"{count:,} webhooks"


def is_agreed(action: str, *, yes: bool, dry_run: bool) -> bool:
    """Say what would be done, and return True if it is to be done: by --yes, or by who answers at the terminal.

    `action` begins with a verb: `replay 12 webhooks`. Raises click.UsageError if there is nobody to ask.
    """
    if dry_run:
        note(f"Would {action}.")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"this would {action}, and nobody can be asked since standard input is no terminal: add --yes to do it, or "
            "--dry-run to see only what it would do"
        )
    return click.confirm(f"{action[:1].upper()}{action[1:]}?", err=True)


@contextmanager
def progress(total: int, left: str) -> Iterator[Advance]:
    """Show how far an action over `total` rows is, on a terminal; the block calls what it is given with rows done.

    What is done stays done if the block is interrupted: then it says how many, and `left`, what becomes of the rest.
    """
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows

    try:
        if total >= PROGRESS_FROM and sys.stderr.isatty():
            with _bar(total) as advance:

                def shown(rows: int) -> None:
                    count(rows)
                    advance(rows)

                yield shown
        else:
            yield count
    except (KeyboardInterrupt, asyncio.CancelledError):
        note(f"Interrupted: {done:,} of {total:,} are done. {left}")
        raise


@contextmanager
def _bar(total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=total)
        yield lambda rows: shown.advance(task, rows)
