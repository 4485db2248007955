"""Serving while the program is being written: on this machine only, restarted on save."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import click

from whereby_trigger import logs
from whereby_trigger.cli.app import Place, app_argument, load, locate
from whereby_trigger.cli.leash import end_with_parent
from whereby_trigger.cli.options import as_arguments, settings_options
from whereby_trigger.cli.output import show_error
from whereby_trigger.cli.serve import serve
from whereby_trigger.config import check
from whereby_trigger.errors import AppError
from whereby_trigger.trigger import Trigger

logger = logging.getLogger("whereby_trigger.dev")

LOOPBACK = "127.0.0.1"
NO_WATCHFILES = "not reloading on save: watchfiles is not installed; `pip install 'whereby-trigger[dev]'` installs it"


@click.command()
@app_argument
@click.option("--reload/--no-reload", default=True, help="Restart when a Python file beside APP changes.")
@click.option("--leashed", is_flag=True, hidden=True)
@settings_options()
def dev(app: str | None, reload: bool, leashed: bool, settings: Mapping[str, Any]) -> None:
    """Serve APP's trigger on this machine, and restart it on save."""
    place = locate(app)
    if leashed:
        _serve_leashed(place, settings)
    elif reload and _can_watch():
        sys.exit(_serve_reloading(place, settings))
    else:
        _serve(load(place), settings)


def _serve_reloading(place: Place, settings: Mapping[str, Any]) -> int:
    from whereby_trigger.cli.reload import keep_reloading

    # What the program and the environment say as well is judged by the child: only it knows both.
    check(settings, "command line")
    logs.configure()
    serving = ["dev", "--leashed", *as_arguments(settings), "--", place.name]
    return keep_reloading([sys.executable, "-P", "-m", "whereby_trigger.cli", *serving], place.folder)


def _serve_leashed(place: Place, settings: Mapping[str, Any]) -> None:
    from whereby_trigger.cli.reload import UNUSABLE

    end_with_parent()
    try:
        trigger = load(place)
    except AppError as error:
        show_error(error)
        sys.exit(UNUSABLE)
    _serve(trigger, settings)


def _serve(trigger: Trigger, settings: Mapping[str, Any]) -> None:
    """Serve as a program that is being written wants it: a restart waits for nobody, and only this machine gets in."""
    trigger.override({"drain_timeout": 0})
    trigger.override(settings)
    if trigger.resolve().sources["host"] == "default":
        trigger.override({"host": LOOPBACK})
    serve(trigger, settings)


def _can_watch() -> bool:
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        logs.configure()
        logger.warning(NO_WATCHFILES)
        return False
    return True
