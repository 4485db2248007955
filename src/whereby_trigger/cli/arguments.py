"""Find the program that a command names and take its one Trigger; open the store that a command reads or changes."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, redirect_stdout
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from msgspec import Struct

from whereby_trigger.config import NAMES, Resolved, Settings, resolve
from whereby_trigger.errors import AppError
from whereby_trigger.process import importing
from whereby_trigger.store import Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.trigger import Trigger

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


def settings_with_store(app: str | None, store: str | None) -> Settings:
    """Resolve the settings of APP, or of the environment, with the store that the command line names."""
    return resolved(app, {"store": store}, needed=("store",)).settings


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
