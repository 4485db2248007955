"""Options that commands share; one for each setting of config.py."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import click

from whereby_trigger.cli.completion import complete_room
from whereby_trigger.config import NAMES, OPTIONS, Option

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
