"""`whereby-trigger start`: serve a program's trigger."""

import logging
from collections.abc import Mapping
from typing import Any

import click

from whereby_trigger import logs
from whereby_trigger.cli.app import app_argument, load, locate
from whereby_trigger.cli.options import settings_options
from whereby_trigger.process import run
from whereby_trigger.trigger import Trigger

logger = logging.getLogger("whereby_trigger")

NO_EFFECT = (
    "no listener and no assistant is registered: decisions are stored and have no effect; "
    "add @trigger.on(...) or @trigger.assistant"
)


def serve(trigger: Trigger, settings: Mapping[str, Any], *, pastes: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, with settings that override the program's own.

    With `pastes`, the log has the code of a handler that is missing.
    """
    trigger.override(settings)
    logs.configure_program(pastes=pastes, whole=True)
    if not trigger.emitter.events() and trigger.registered_assistant is None:
        logger.warning(NO_EFFECT)
    run(trigger.serve(), lambda: trigger.end_by, to_the_end=True)


@click.command()
@app_argument
@settings_options()
def start(app: str | None, settings: Mapping[str, Any]) -> None:
    """Serve APP until SIGTERM or Ctrl-C, then drain and exit."""
    serve(load(locate(app)), settings)
