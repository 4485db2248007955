"""`whereby-trigger config`: show the settings that a program would run with, and the source of each."""

from collections.abc import Mapping
from typing import Any

import click

from whereby_trigger.cli.app import app_argument, resolved
from whereby_trigger.cli.options import json_option, settings_options
from whereby_trigger.cli.output import note, show_objects, show_table
from whereby_trigger.config import NAMES, Resolved, masked

NOT_VARIABLES = ("command line", "keyword", "default")


@click.command()
@app_argument
@json_option
@settings_options()
def config(app: str | None, as_json: bool, settings: Mapping[str, Any]) -> None:
    """Show each setting, its value, and the value's source.

    Secrets are masked.
    """
    found = resolved(app, settings)
    if as_json:
        show_objects(_objects(found))
    else:
        rows = [(name, _shown(found, name), _source(found, name)) for name in NAMES]
        show_table(rows, ("setting", "value", "from"))
    for warning in found.warnings:
        note(f"Warning: {warning}")


def _objects(found: Resolved) -> list[dict[str, Any]]:
    return [{"name": name, "value": _bare(found, name), "source": found.sources[name]} for name in NAMES]


def _bare(found: Resolved, name: str) -> Any:
    """Return a value as JSON has it; settings that hold secrets are masked."""
    value = getattr(found.settings, name)
    return masked(name, value) if name in ("secret", "store", "inspector_token") else value


def _shown(found: Resolved, name: str) -> str:
    value = getattr(found.settings, name)
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return masked(name, whole) or "-"


def _source(found: Resolved, name: str) -> str:
    source = found.sources[name]
    return source if source in NOT_VARIABLES else f"{source} in the environment"
