"""`whereby-trigger check` and `config`: try a program before it is started, and show the settings it would run with.

`check` tries its import, functions, secret, store and ports.
"""

import asyncio
import re
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from msgspec import Struct

from whereby_trigger.assist import Assistant, CoroutineAssistant
from whereby_trigger.cli.arguments import (
    AppLocation,
    app_argument,
    json_option,
    load,
    locate,
    resolved,
    settings_options,
)
from whereby_trigger.cli.output import FAILED, note, show_objects, show_table
from whereby_trigger.config import NAMES, Resolved, Settings, check_exposure, check_inspector, masked
from whereby_trigger.decide import TRIGGER_EVENT_SUCCESS
from whereby_trigger.errors import AppError, ConfigError, SpillInUse, UsageError
from whereby_trigger.receive import bind
from whereby_trigger.store import Store
from whereby_trigger.store.factory import spill_file_for, store_for
from whereby_trigger.store.spill_file import SpillContent, SpillFile, read_content
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.trigger import Trigger

if TYPE_CHECKING:
    from whereby_trigger.store.postgres import PostgresStore

QUOTES = "\"'`\u2018\u2019\u201c\u201d"
ASSIGNMENT = re.compile(r"(export\s+)?[A-Z][A-Z0-9_]*=")


class Finding(Struct, frozen=True):
    """Hold the result of one check, with its detail in words; `warns` marks what works but is unusual."""

    about: str
    ok: bool
    detail: str
    warns: bool = False

    @property
    def verdict(self) -> str:
        if not self.ok:
            return "problem"
        return "warning" if self.warns else "ok"


@click.command()
@app_argument
@json_option
@settings_options()
def check(app: str | None, as_json: bool, settings: Mapping[str, Any]) -> None:
    """Check that APP can start: functions, secret, store, ports.

    Exits with 1 if there is a problem.
    """
    findings = list(_findings(locate(app), settings))
    if as_json:
        show_objects(map(_as_object, findings))
    else:
        show_table([(found.verdict, found.about, found.detail) for found in findings])
    if not all(found.ok for found in findings):
        raise click.exceptions.Exit(FAILED)


def _as_object(found: Finding) -> dict[str, Any]:
    return {"check": found.about, "ok": found.ok, "verdict": found.verdict, "detail": found.detail}


def _findings(place: AppLocation, given: Mapping[str, Any]) -> Iterator[Finding]:
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
    yield from _store(settings)
    yield from _spill(settings)
    yield from _privacy(settings)
    yield _port("port", settings.listen_host, settings.port)
    if settings.metrics_address is not None:
        yield _port("metrics", *settings.metrics_address)
    if settings.inspector_address is not None:
        yield _inspector(settings, *settings.inspector_address)


def _functions(trigger: Trigger) -> Iterator[Finding]:
    for type, name in trigger.predicates.names().items():
        yield Finding("predicate", True, f"{name} for {type}")
    for event in trigger.emitter.events():
        yield Finding("listeners", True, f"{len(trigger.listeners(event))} for {event}")
    assistant = trigger.registered_assistant
    if assistant is not None:
        yield _assistant(assistant)
    has_effect = assistant is not None or bool(trigger.listeners(TRIGGER_EVENT_SUCCESS))
    if trigger.predicates.types() and not has_effect:
        yield Finding(
            "listeners", False, "nothing happens when the trigger fires: add @trigger.on(TRIGGER_EVENT_SUCCESS)"
        )
    elif has_effect and not trigger.predicates.types():
        yield Finding("predicate", False, "none: the trigger never fires; add @trigger.when(TYPE)")
    elif not trigger.predicates.types() and not trigger.emitter.events():
        yield Finding("listeners", False, "none, and no predicate: webhooks would be stored without effect")


def _assistant(assistant: Assistant) -> Finding:
    if isinstance(assistant, CoroutineAssistant):
        return Finding("assistant", True, f"{assistant.name}, a coroutine: {assistant.bounds.words}")
    if sys.platform == "win32":
        return Finding("assistant", False, "a command cannot be an assistant on Windows: use a coroutine")
    program = assistant.argv[0]
    if shutil.which(program, path=assistant.env.get("PATH")) is None:
        return Finding(
            "assistant", False, f"there is no program {program}: install it, or check its spelling and the PATH"
        )
    return Finding("assistant", True, f"{assistant.name}, a command: {assistant.bounds.words}")


def _secret(settings: Settings) -> Finding:
    try:
        check_exposure(settings)
    except ConfigError as error:
        return Finding("secret", False, str(error))
    if settings.signed:
        odd = [oddity for secret in settings.secret if (oddity := _oddity(secret))]
        found = f"{len(settings.secret)} set"
        if not odd:
            return Finding("secret", True, found)
        return Finding("secret", True, f"{found}; one {odd[0]}: is it as Whereby's dashboard shows it?", warns=True)
    served = "any address is served" if settings.allow_unsigned else "only this machine is served"
    return Finding("secret", True, f"none set: {served}, and no signature is checked")


def _oddity(secret: str) -> str | None:
    """Return what a secret has that is likely to come from how it was copied; None if it looks right."""
    if secret[0] in QUOTES or secret[-1] in QUOTES:
        return "has a quotation mark at its beginning or end"
    if ASSIGNMENT.match(secret):
        return "begins with NAME="
    if secret.startswith("\ufeff"):
        return "begins with a byte order mark (BOM), which some editors write"
    return "contains white space" if len(secret.split()) > 1 else None


def _privacy(settings: Settings) -> Iterator[Finding]:
    kept = settings.body_retention
    if kept is not None and kept >= settings.retention:
        detail = f"{kept:g} s has no effect: the webhooks go after the retention, {settings.retention:g} s"
        yield Finding("body_retention", True, detail, warns=True)


def _port(about: str, host: str, port: int) -> Finding:
    try:
        bind(host, port, about).close()
    except UsageError as error:
        return Finding(about, False, str(error))
    return Finding(about, True, f"{port} is free on {host}" if port else f"any free port on {host}")


def _inspector(settings: Settings, host: str, port: int) -> Finding:
    try:
        check_inspector(settings, host)
    except ConfigError as error:
        return Finding("inspector", False, str(error))
    return _port("inspector", host, port)


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        store = store_for(settings.store)
        if isinstance(store, SqliteStore):
            yield Finding("store", True, _try_file(store))
        else:
            yield from _try_server(store)
    except UsageError as error:
        yield Finding("store", False, str(error))


def _try_file(store: SqliteStore) -> str:
    """Write to the store's file and return how that went; a file that does not exist is not created."""
    if _could_create(store.path, lambda url: _write_to(SqliteStore(url))):
        return f"{store.location} does not exist yet and can be created"
    asyncio.run(_write_to(store))
    return f"{store.location} opens and takes writes"


def _try_server(store: "PostgresStore") -> Iterator[Finding]:
    remarks = asyncio.run(store.look())
    yield Finding("store", True, f"{store.location} answers")
    for remark in remarks:
        yield Finding(f"store {remark.about}", remark.problem is None, remark.words, remark.warns)


def _could_create(path: Path, write_to: Callable[[str], Coroutine[Any, Any, None]]) -> bool:
    """Return True if a file does not exist, and one like it can be written in a folder beside it."""
    if path.exists():
        return False
    try:
        with TemporaryDirectory(prefix=f"{path.name}-check-", dir=path.parent) as folder:
            asyncio.run(write_to(f"sqlite:///{quote(folder)}/check.db"))
    except OSError:
        return False
    return True


async def _write_to(store: Store) -> None:
    await store.open()
    try:
        await store.ping(time.time())
    finally:
        await store.close()


def _spill(settings: Settings) -> Iterator[Finding]:
    try:
        file = spill_file_for(settings.spill, settings.store)
        if file is not None:
            yield _try_spill(file)
    except UsageError as error:
        yield Finding("spill", False, str(error))


def _try_spill(file: SpillFile) -> Finding:
    """Write to the spill; return how that went, and how many deliveries wait in it."""
    if _could_create(file.path, lambda url: _write_to_spill(SpillFile(url))):
        return Finding("spill", True, f"{file.path} does not exist yet and can be created")
    # Read first: opening it to write makes refused deliveries wait again.
    content = read_content(file.path) if file.path.exists() else SpillContent(0, 0)
    try:
        asyncio.run(_write_to_spill(file))
        state = "takes writes"
    except SpillInUse:
        state = "is in use by a running trigger"
    refused = f", refused by the database: {content.refused}" if content.refused else ""
    detail = f"{file.path} {state}; deliveries waiting in it: {content.waiting}{refused}"
    return Finding("spill", not content.refused, detail)


async def _write_to_spill(file: SpillFile) -> None:
    await file.open()
    try:
        await file.ping()
    finally:
        await file.close()


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
