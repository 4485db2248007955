"""Looking a program over before it is started: its import, its functions, its secret, its store and its port."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from whereby_trigger.assist import Assistant, CoroutineAssistant
from whereby_trigger.cli.app import AppLocation, app_argument, load, locate
from whereby_trigger.cli.events import json_option
from whereby_trigger.cli.findings import Finding
from whereby_trigger.cli.options import settings_options
from whereby_trigger.cli.output import FAILED, show_objects, show_table
from whereby_trigger.cli.stores import spill_findings, store_findings
from whereby_trigger.config import Settings, check_exposure
from whereby_trigger.decide import TRIGGER_EVENT_SUCCESS
from whereby_trigger.errors import AppError, ConfigError, UsageError
from whereby_trigger.receive import bind
from whereby_trigger.trigger import Trigger


@click.command()
@app_argument
@json_option
@settings_options()
def check(app: str | None, as_json: bool, settings: Mapping[str, Any]) -> None:
    """Check that APP could be started: its functions, secret, store and port; exits with 1 if there is a problem."""
    findings = list(_look_over(locate(app), settings))
    if as_json:
        show_objects(map(_as_object, findings))
    else:
        show_table([(found.verdict, found.about, found.detail) for found in findings])
    if not all(found.ok for found in findings):
        raise click.exceptions.Exit(FAILED)


def _as_object(found: Finding) -> dict[str, Any]:
    return {"check": found.about, "ok": found.ok, "verdict": found.verdict, "detail": found.detail}


def _look_over(place: AppLocation, given: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        trigger = load(place)
    except AppError as error:
        yield Finding("app", False, " ".join(str(error).split()))
        return
    yield Finding("app", True, f"{place.name} imports")
    trigger.override(given)
    settings = trigger.resolve().settings
    yield from _functions(trigger)
    yield _secret(settings)
    yield from store_findings(settings)
    yield from spill_findings(settings)
    yield _port(settings)


def _functions(trigger: Trigger) -> Iterator[Finding]:
    for type, name in trigger.predicates.names().items():
        yield Finding("predicate", True, f"{name} for {type}")
    for event in trigger.emitter.events():
        yield Finding("listeners", True, f"{len(trigger.listeners(event))} for {event}")
    assistant = trigger.registered_assistant
    if assistant is not None:
        yield _assistant(assistant)
    heard = assistant is not None or bool(trigger.listeners(TRIGGER_EVENT_SUCCESS))
    if trigger.predicates.types() and not heard:
        yield Finding("listeners", False, "nobody hears when the trigger fires: add @trigger.on(TRIGGER_EVENT_SUCCESS)")
    elif heard and not trigger.predicates.types():
        yield Finding("predicate", False, "none, so that the trigger never fires: add @trigger.when(TYPE)")
    elif not trigger.predicates.types() and not trigger.emitter.events():
        yield Finding("listeners", False, "none, and no predicate: nothing would be done about any webhook")


def _assistant(assistant: Assistant) -> Finding:
    if isinstance(assistant, CoroutineAssistant):
        return Finding("assistant", True, f"{assistant.name}, a coroutine")
    if sys.platform == "win32":
        return Finding("assistant", False, "a command cannot be an assistant on Windows: use a coroutine")
    program = assistant.argv[0]
    if shutil.which(program, path=assistant.env.get("PATH")) is None:
        return Finding(
            "assistant", False, f"there is no program {program}: install it, check its spelling and the PATH"
        )
    return Finding("assistant", True, f"{assistant.name}, a command")


def _secret(settings: Settings) -> Finding:
    try:
        check_exposure(settings)
    except ConfigError as error:
        return Finding("secret", False, str(error))
    if settings.signed:
        return Finding("secret", True, f"{len(settings.secret)} set")
    served = "anybody is served" if settings.allow_unsigned else "only this machine is served"
    return Finding("secret", True, f"none set: {served}, and no signature is checked")


def _port(settings: Settings) -> Finding:
    host, port = settings.listen_host, settings.port
    try:
        bind(host, port).close()
    except UsageError as error:
        return Finding("port", False, str(error))
    return Finding("port", True, f"{port} is free on {host}" if port else f"any that is free on {host}")
