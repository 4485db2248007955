"""What commands are called with: a program and its one Trigger, a store, and options, among them all settings.

Completion in a shell does not import the program, since it may do anything: the store is that of `--store`, the
environment or this folder.
"""

import asyncio
import functools
import importlib
import importlib.util
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, redirect_stdout, suppress
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from click.shell_completion import CompletionItem
from msgspec import Struct

from whereby_trigger.config import NAMES, OPTIONS, Option, Resolved, Settings, resolve
from whereby_trigger.errors import AppError, ConfigError
from whereby_trigger.process import importing
from whereby_trigger.store import Query, Record, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.text import time_range as read_time_range
from whereby_trigger.trigger import Trigger
from whereby_trigger.webhook import WEBHOOK_TYPES

DEFAULTS = ("app.py", "main.py", "trigger.py")
OURS = Path(__file__).parent.parent
FORM = "write file.py or module:attribute"

app_argument = click.argument("app", required=False)
app_option = click.option("--app", metavar="APP", help="The program whose settings apply: file.py or module:attribute.")


class AppLocation(Struct, frozen=True):
    """Hold the location of a program: a `file`, or a `module` found from `folder`; `attribute` names its Trigger."""

    name: str
    folder: Path
    file: Path | None
    module: str
    attribute: str | None


def locate(app: str | None) -> AppLocation:
    """Find the program that APP names, or the default one; raises AppError if there is none."""
    if app is None:
        app = default_app()
    if app is None:
        raise AppError(f"none of {', '.join(DEFAULTS)} is in {Path.cwd()}: name your program, e.g. path/to/file.py")
    target, attribute = _split(app)
    if target.endswith(".py"):
        file = Path(target).absolute()
        if not file.is_file():
            raise AppError(f"there is no file {file}: check the path, and the folder you are in")
        return AppLocation(app, file.parent, file, file.stem, attribute)
    if not all(part.isidentifier() for part in target.split(".")):
        raise AppError(f"{app!r} is neither a file nor a module: {FORM}")
    return AppLocation(app, Path.cwd(), None, target, attribute)


def load(place: AppLocation) -> Trigger:
    """Import a program and return its Trigger; what the program prints goes to standard error.

    Raises AppError if it cannot be imported, or defines no Trigger or several.
    """
    sys.path.insert(0, str(place.folder))
    try:
        with importing(), redirect_stdout(sys.stderr):
            module = _import(place)
    except (Exception, SystemExit) as error:
        raise AppError(_why_not_imported(place, error)) from error
    return _trigger_of(module, place)


def resolved(app: str | None, given: Mapping[str, Any], needed: tuple[str, ...] = NAMES) -> Resolved:
    """Resolve the settings of the program that APP names, or of the environment alone if there is no program.

    The default program is imported only if the command line does not give all settings in `needed`.
    """
    settled = all(given.get(name) is not None for name in needed)
    if app is None and (settled or default_app() is None):
        return resolve({}, given)
    trigger = load(locate(app))
    trigger.override(given)
    return trigger.resolve()


def default_app() -> str | None:
    """Return the program that commands take if none is named, or None if the folder has none."""
    return next((name for name in DEFAULTS if Path(name).is_file()), None)


def _split(app: str) -> tuple[str, str | None]:
    target, colon, attribute = app.rpartition(":")
    if colon and all(part.isidentifier() for part in attribute.split(".")):
        return target, attribute
    return app, None


def _import(place: AppLocation) -> ModuleType:
    if place.file is None:
        return importlib.import_module(place.module)
    spec = importlib.util.spec_from_file_location(place.module, place.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place.file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.module] = module
    spec.loader.exec_module(module)
    return module


def _trigger_of(module: ModuleType, place: AppLocation) -> Trigger:
    if place.attribute is not None:
        return _named(module, place, place.attribute)
    found = {id(value): name for name, value in vars(module).items() if isinstance(value, Trigger)}
    names = list(found.values())
    if not names:
        raise AppError(
            f"{place.name} defines no Trigger: create one outside of any function, e.g. trigger = Trigger(...)"
        )
    if len(names) > 1:
        raise AppError(f"{place.name} defines {len(names)} Triggers: name one, e.g. {place.name}:{names[0]}")
    trigger: Trigger = getattr(module, names[0])
    return trigger


def _named(module: ModuleType, place: AppLocation, attribute: str) -> Trigger:
    try:
        value = attrgetter(attribute)(module)
    except AttributeError as error:
        raise AppError(f"{place.name} has no {attribute}: name the variable that holds the Trigger") from error
    if not isinstance(value, Trigger):
        kind = type(value).__name__
        raise AppError(f"{place.name} is a {kind}, not a Trigger: name the variable that holds the Trigger")
    return value


def _why_not_imported(place: AppLocation, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name is not None and place.file is None:
        parents = place.module.split(".")
        if error.name in (".".join(parents[: n + 1]) for n in range(len(parents))):
            return f"no module {error.name} is found from {place.folder}: {FORM}"
    what = f"{type(error).__name__}: {_message(error)}"
    whole = f"python {place.file or f'-m {place.module}'}"
    return f"{place.name} cannot be imported: {what}\n{_where(place, error)}`{whole}` shows the whole traceback"


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return " ".join(str(error).split()) or "no message"


def _where(place: AppLocation, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename is not None:
        file, number, line = error.filename, error.lineno, error.text
    else:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if _is_theirs(place, frame.filename)]
        if not theirs:
            return ""
        file, number, line = theirs[-1].filename, theirs[-1].lineno, theirs[-1].line
    shown = Path(file)
    name = shown.relative_to(place.folder) if shown.is_relative_to(place.folder) else shown
    return f"  {name}, line {number}: {(line or '').strip()}\n"


def _is_theirs(place: AppLocation, file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(place.folder) and not path.is_relative_to(OURS) and "site-packages" not in path.parts


def settings_with_store(app: str | None, store: str | None, *more: str) -> Settings:
    """Resolve the settings of APP, or of the environment, with the store that the command line names.

    If it names one, the default program is imported only if the command goes by `more` settings.
    """
    return resolved(app, {"store": store}, needed=("store", *more)).settings


@asynccontextmanager
async def store_to_read(url: str) -> AsyncIterator[Store]:
    """Open a store to read it; raises StoreError if there is none."""
    store = store_for(url)
    await store.open_readonly()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def store_to_change(url: str) -> AsyncIterator[Store]:
    """Open a store to change it; raises StoreError if there is none."""
    # Opening to write would create a missing store.
    async with store_to_read(url):
        pass
    store = store_for(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


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
