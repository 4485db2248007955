"""Looking a program over before it is started: its import, its functions, its secret, its store and its port."""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import click
from msgspec import Struct

from whereby_trigger.assist import Assistant, CoroutineAssistant
from whereby_trigger.cli.app import Place, app_argument, load, locate
from whereby_trigger.cli.events import json_option
from whereby_trigger.cli.options import settings_options
from whereby_trigger.cli.output import FAILED, show_objects, show_table
from whereby_trigger.config import Settings
from whereby_trigger.decide import TRIGGER_EVENT_SUCCESS
from whereby_trigger.errors import AppError, ConfigError, SpillInUse, UsageError
from whereby_trigger.reach import check_reach
from whereby_trigger.receive import bind
from whereby_trigger.store import Store
from whereby_trigger.store.spill import Content, Spool, look_into
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.stores import spool_for, store_for
from whereby_trigger.trigger import Trigger


class Finding(Struct, frozen=True):
    """Say about one thing that was looked at whether it is in order, in words."""

    about: str
    ok: bool
    detail: str

    @property
    def verdict(self) -> str:
        return "ok" if self.ok else "problem"


@click.command()
@app_argument
@json_option
@settings_options()
def check(app: str | None, as_json: bool, settings: Mapping[str, Any]) -> None:
    """Check that APP could be started: its functions, secret, store and port; exits with 1 if there is a problem."""
    findings = list(_look_over(locate(app), settings))
    if as_json:
        show_objects({"check": found.about, "ok": found.ok, "detail": found.detail} for found in findings)
    else:
        show_table([(found.verdict, found.about, found.detail) for found in findings])
    if not all(found.ok for found in findings):
        raise click.exceptions.Exit(FAILED)


def _look_over(place: Place, given: Mapping[str, Any]) -> Iterator[Finding]:
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
    yield _store(settings)
    yield from _spill(settings)
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
        check_reach(settings)
    except ConfigError as error:
        return Finding("secret", False, str(error))
    if settings.signed:
        return Finding("secret", True, f"{len(settings.secret)} set")
    served = "anybody is served" if settings.allow_unsigned else "only this machine is served"
    return Finding("secret", True, f"none set: {served}, and no signature is checked")


def _store(settings: Settings) -> Finding:
    try:
        return Finding("store", True, _try_store(store_for(settings.store)))
    except UsageError as error:
        return Finding("store", False, str(error))


def _try_store(store: Store) -> str:
    """Try whether a store takes writes; one that is not there yet is not created, but tried in a folder beside it."""
    if isinstance(store, SqliteStore) and _fits(store.path, lambda url: _write_to(SqliteStore(url))):
        return f"{store.location} is not there yet; its folder takes one"
    asyncio.run(_write_to(store))
    return f"{store.location} opens and takes writes"


def _fits(path: Path, write_to: Callable[[str], Coroutine[Any, Any, None]]) -> bool:
    """Tell whether a file is not there yet, and its folder takes one like it."""
    if path.exists():
        return False
    try:
        with TemporaryDirectory(prefix=f"{path.name}-check-", dir=path.parent) as folder:
            asyncio.run(write_to(f"sqlite:///{quote(folder)}/check.db"))
    except OSError:
        return False
    return True


async def _write_to(store: Store) -> None:
    await store.open(lambda: None)
    try:
        await store.ping(time.time())
    finally:
        await store.close()


def _spill(settings: Settings) -> Iterator[Finding]:
    try:
        spool = spool_for(settings.spill, settings.store)
        if spool is not None:
            yield _try_spool(spool)
    except UsageError as error:
        yield Finding("spill", False, str(error))


def _try_spool(spool: Spool) -> Finding:
    """Try whether a spool takes writes, as with a store, and tell what waits in it."""
    if _fits(spool.path, lambda url: _spool_to(Spool(url))):
        return Finding("spill", True, f"{spool.path} is not there yet; its folder takes one")
    # Looked into before it is opened for writing, which lets what was refused wait again.
    content = look_into(spool.path) if spool.path.exists() else Content(0, 0)
    try:
        asyncio.run(_spool_to(spool))
        taken = "takes writes"
    except SpillInUse:
        taken = "is in use by a running trigger"
    refused = f", {content.refused} that the database refused are kept aside" if content.refused else ""
    detail = f"{spool.path} {taken}; {content.waiting} deliveries wait in it{refused}"
    return Finding("spill", not content.refused, detail)


async def _spool_to(spool: Spool) -> None:
    await spool.open()
    try:
        await spool.ping()
    finally:
        await spool.close()


def _port(settings: Settings) -> Finding:
    host, port = settings.listen_host, settings.port
    try:
        bind(host, port).close()
    except UsageError as error:
        return Finding("port", False, str(error))
    return Finding("port", True, f"{port} is free on {host}" if port else f"any that is free on {host}")
