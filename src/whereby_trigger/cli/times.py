"""The options that take a time, as people write it."""

from datetime import datetime

import click

from whereby_trigger import times
from whereby_trigger.errors import ConfigError

since_option = click.option(
    "--since", metavar="TIME", help="Only from this time on: 22:14, '2026-11-28 22:14', 2h (ago) or ISO 8601."
)
until_option = click.option("--until", metavar="TIME", help="Only before this time, written as for --since.")


def time_range(since: str | None, until: str | None, now: datetime | None = None) -> tuple[float | None, float | None]:
    """Return the times of two options, in seconds since 1970; raises click.UsageError if they are none."""
    try:
        return times.time_range(since, until, now, ("--since", "--until"))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
