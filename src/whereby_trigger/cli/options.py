"""Options that commands share, one for each setting of config.py, and their completion in a shell.

Completion does not import the program, since it may do anything: the store is that of `--store`, the environment or
this folder.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import click
from click.shell_completion import CompletionItem

from whereby_trigger.cli.app import store_to_read
from whereby_trigger.config import NAMES, OPTIONS, Option, resolve
from whereby_trigger.errors import ConfigError
from whereby_trigger.store import Query, Record
from whereby_trigger.text import time_range as read_time_range
from whereby_trigger.webhook import WEBHOOK_TYPES

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

NEWEST = 500
"""Stored webhooks among which rooms and ids are looked for."""

WITHIN = 2.0
"""Seconds that a store has to answer: somebody waits at a prompt."""


def complete_type(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a type of webhook."""
    return [CompletionItem(type) for type in WEBHOOK_TYPES if type.startswith(incomplete)]


def complete_room(*, names: bool = False) -> Complete:
    """Return what completes a room's key from the store, or its name with `names`."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        keys = [record.room for record in _newest(context, Query(limit=NEWEST)) if record.room is not None]
        texts = ["/" + key.partition("/")[2] for key in keys] if names else keys
        return [CompletionItem(text) for text in dict.fromkeys(texts) if text.startswith(incomplete)]

    return complete


def complete_id(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the id of a stored webhook, newest first; its type and state are the help."""
    found = _newest(context, Query(prefix=incomplete or None, limit=NEWEST))
    return [CompletionItem(record.id, help=f"{record.type} {record.state}") for record in found]


def _newest(context: click.Context, query: Query) -> list[Record]:
    async def find() -> list[Record]:
        async with asyncio.timeout(WITHIN), store_to_read(url) as store:
            return await store.find(query)

    # Whatever is wrong, a shell that completes has no place for it.
    with suppress(Exception):
        url = resolve({}, {"store": context.params.get("store")}).settings.store
        return asyncio.run(find())
    return []


Command = Callable[..., Any]

LIMIT = 50
"""Rows that a list shows by default."""

store_option = click.option("--store", metavar="URL", help="The store. [default: that of APP, or of the environment]")
room_option = click.option(
    "--room", metavar="ROOM", help="Only this room: a URL, a key or a name.", shell_complete=complete_room()
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")

METAVARS: Mapping[type, str] = {float: "SECONDS", int: "N"}
NAMED_METAVARS: Mapping[str, str] = {"body_retention": "SECONDS", "redact": "FIELDS"}


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Add an option to a command for each setting named, or for all.

    The command is called with `settings`, a mapping whose values are None for settings that were not given.
    The values stay unparsed: `resolve` reads the values of all sources.
    """
    chosen = [option for option in OPTIONS if option.name in (names or NAMES)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_settings(**values: Any) -> Any:
            given = {option.name: values.pop(option.name) for option in chosen}
            settings = {name: None if value == () else value for name, value in given.items()}
            return command(settings=settings, **values)

        decorated: Command = with_settings
        for option in reversed(chosen):
            decorated = _as_option(option)(decorated)
        return decorated

    return decorate


def flag(name: str) -> str:
    """Return the option that sets a setting."""
    return "--" + name.replace("_", "-")


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings that came from a command line as arguments again."""
    arguments: list[str] = []
    for name, value in settings.items():
        if value is True:
            arguments.append(flag(name))
        elif value is False:
            arguments.append("--no-" + name.replace("_", "-"))
        elif value is not None:
            values = value if isinstance(value, tuple) else (value,)
            arguments += [f"{flag(name)}={one}" for one in values]
    return arguments


def _as_option(option: Option) -> Callable[[Command], Command]:
    if option.default is True:
        name = option.name.replace("_", "-")
        return click.option(f"--{name}/--no-{name}", option.name, default=None, help=_help(option))
    if option.default is False:
        return click.option(flag(option.name), option.name, is_flag=True, default=None, help=_help(option))
    metavar = METAVARS.get(type(option.default), NAMED_METAVARS.get(option.name, option.name.upper()))
    several = option.name == "secret"
    return click.option(flag(option.name), option.name, metavar=metavar, multiple=several, help=_help(option))


def _help(option: Option) -> str:
    text = f"{option.help[0].upper()}{option.help[1:]}."
    shown = f"{option.default:g}" if isinstance(option.default, float) else option.default
    return text if not option.default or option.default is True else f"{text} [default: {shown}]"


since_option = click.option(
    "--since", metavar="TIME", help="Only from this time on: 22:14, '2026-11-28 22:14', 2h (ago) or ISO 8601."
)
until_option = click.option("--until", metavar="TIME", help="Only before this time, written as for --since.")


def time_range(since: str | None, until: str | None, now: datetime | None = None) -> tuple[float | None, float | None]:
    """Return the times of two options, in seconds since 1970; raises click.UsageError if they are none."""
    try:
        return read_time_range(since, until, now, ("--since", "--until"))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
