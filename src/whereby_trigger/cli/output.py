"""Talk to the person at the terminal: tables, JSON lines and errors, questions before a change, and progress."""

import asyncio
import errno
import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import click

from whereby_trigger.config import wants_colour
from whereby_trigger.errors import StoreUnavailable, UsageError
from whereby_trigger.text import printable
from whereby_trigger.threads import shortage_of

FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130
CANNOT_BE_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""Errors of a write to standard output; errors of files that we open ourselves name the file."""


class Failed(click.ClickException):
    """Report that a command failed although its call was right."""

    exit_code = FAILED


def escape_what_cannot_be_encoded() -> None:
    """Print the escape of each character that the output's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_unwritten_output() -> None:
    """Discard output that cannot be written: the interpreter would try again at its end, and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def show_error(error: Exception) -> int:
    """Print an error to standard error, and return the exit code that goes with it."""
    if isinstance(error, BrokenPipeError):
        # The reader has closed the pipe, as `| head` does: this is no error to report.
        return FAILED
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, OSError) and error.filename is None and error.errno in CANNOT_BE_WRITTEN:
        message = f"cannot write to standard output, so the output is lost: {error.strerror}"
    lines = [wrapped(printable(line)) for line in f"Error: {message}".splitlines()]
    if isinstance(error, click.UsageError) and error.ctx is not None:
        lines.append(f"Try '{error.ctx.command_path} --help'.")
    _say("\n".join(lines))
    if isinstance(error, click.ClickException):
        return error.exit_code
    wrong = isinstance(error, UsageError) and not isinstance(error, StoreUnavailable)
    return WRONG_CALL if wrong and not _is_shortage(error) else FAILED


def _is_shortage(error: BaseException) -> bool:
    """Return True if an error comes from a lack of threads, files or memory: then another try may succeed."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    return any(shortage_of(each) is not None for each in causes)


def note(text: str) -> None:
    """Print a remark to standard error, to keep it out of output that a program reads."""
    _say(wrapped(printable(text)))


def _say(text: str) -> None:
    """Print to standard error; a failure to print there cannot be reported, so it is ignored."""
    with suppress(OSError):
        click.echo(text, err=True)


def show_lines(*lines: str) -> None:
    """Print lines to standard output; characters that would break a line are escaped."""
    for line in lines:
        click.echo(printable(line))


def wrapped(text: str) -> str:
    """Return a line, wrapped at words if standard error is a terminal that is too narrow for it."""
    if not sys.stderr.isatty():
        return text
    width = shutil.get_terminal_size().columns
    broken = textwrap.wrap(
        text, width, subsequent_indent="  ", drop_whitespace=True, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(broken)


def show_objects(objects: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object a line."""
    for fields in objects:
        click.echo(json.dumps(fields))


def show_table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> None:
    """Print rows in columns: whole if a program reads them, else so that no line is wider than the terminal."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from whereby_trigger.cli.tables import fitted

        lines = fitted(cells, header, shutil.get_terminal_size().columns, coloured=wants_colour())
    else:
        whole = cells if header is None else [list(header), *cells]
        widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in whole]
    for line in lines:
        # Colours that are in the lines are there for a terminal.
        click.echo(line, color=True)


def local(moment: float) -> str:
    """Return a time, in seconds since 1970, in the local time zone."""
    return datetime.fromtimestamp(moment, UTC).astimezone().isoformat(" ", "seconds")


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
    """Show what would be done, and return True if it is to be done: by --yes, or by who answers at the terminal.

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
