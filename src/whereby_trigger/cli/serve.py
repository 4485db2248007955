"""`whereby-trigger start`, `dev` and `inspect`: serve a trigger, serve it while it is written, or serve its inspector.

`dev` serves on this machine only and restarts when a Python file changes. `inspect` serves the inspector over a store,
beside the triggers that run on it.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from whereby_trigger import logs
from whereby_trigger.cli.arguments import (
    AppLocation,
    app_argument,
    as_arguments,
    default_app,
    load,
    locate,
    settings_options,
    store_option,
    store_to_read,
)
from whereby_trigger.cli.output import WRONG_CALL, show_error
from whereby_trigger.config import check, check_inspector
from whereby_trigger.errors import AppError
from whereby_trigger.loggers import own_logger
from whereby_trigger.process import ENDING, run
from whereby_trigger.receive import bind, reserve
from whereby_trigger.trigger import Trigger

if TYPE_CHECKING:
    from watchfiles import Change

logger = own_logger("whereby_trigger")

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


dev_logger = own_logger("whereby_trigger.dev")

STDIN = 0
LOOPBACK = "127.0.0.1"
NO_WATCHFILES = "not reloading on save: watchfiles is not installed; `pip install 'whereby-trigger[dev]'` installs it"

UNUSABLE = 3
"""The exit code of a child whose program cannot be imported as it is now."""

LOOK_EVERY = 200
"""Milliseconds between two looks at the child."""

GATHER_FOR = 100
"""Milliseconds for which changes are gathered after the first."""

END_WITHIN = 3.0
"""Seconds that a program has to end before it is killed; what it acknowledged is in the store."""


class ChildProcess:
    """Run a command as a child that gets a SIGTERM when its stdin closes: by `end`, or when this process dies."""

    def __init__(self, command: Sequence[str]) -> None:
        # Ctrl-C reaches a whole process group: in a group of its own, the child is told by its parent alone.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def end(self, within: float) -> None:
        """Close its stdin, and kill it if it has not ended after `within` seconds."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            self._process.wait()


def end_with_parent() -> None:
    """Send a SIGTERM to this process when its parent closes its stdin or dies."""
    threading.Thread(target=_await_end_of_stdin, name="whereby-trigger-dev", daemon=True).start()


def _await_end_of_stdin() -> None:
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def keep_reloading(command: Sequence[str], folder: Path) -> int:
    """Run a command until a signal, and restart it when a Python file in a folder changes; return the exit code.

    Pending webhooks survive in the store. A command that ends is started again after a change, unless it exited with 0
    or its first call was wrong.
    """
    from watchfiles import PythonFilter, watch

    with _signalled() as stop:
        child = ChildProcess(command)
        first, waiting = True, False
        try:
            for changes in watch(
                folder,
                watch_filter=PythonFilter(),
                debounce=GATHER_FOR,
                stop_event=stop,
                rust_timeout=LOOK_EVERY,
                yield_on_timeout=True,
                raise_interrupt=False,
            ):
                if changes:
                    dev_logger.info("%s changed: restarting", _names(changes, folder))
                    child.end(END_WITHIN)
                    child, first, waiting = ChildProcess(command), False, False
                elif not waiting and child.exit_code is not None:
                    if child.exit_code == 0 or (first and child.exit_code == WRONG_CALL):
                        return child.exit_code
                    dev_logger.warning(
                        "the program ended with exit code %d: waiting for a change in %s", child.exit_code, folder
                    )
                    waiting = True
        finally:
            child.end(END_WITHIN)
    return 0


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; a second signal has its usual effect."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in ENDING}

    def receive(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in ENDING:
        signal.signal(number, receive)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _names(changes: set[tuple["Change", str]], folder: Path) -> str:
    return ", ".join(sorted({str(Path(file).relative_to(folder)) for _, file in changes}))


@click.command()
@app_argument
@click.option("--reload/--no-reload", default=True, help="Restart when a Python file beside APP changes.")
@click.option("--as-child", is_flag=True, hidden=True)
@click.option("--inspector-port", type=int, default=0, hidden=True)
@settings_options()
def dev(app: str | None, reload: bool, as_child: bool, inspector_port: int, settings: Mapping[str, Any]) -> None:
    """Serve APP and the inspector on this machine; restart on save."""
    place = locate(app)
    if as_child:
        _serve_as_child(place, settings, inspector_port)
    elif reload and _can_watch():
        sys.exit(_serve_reloading(place, settings))
    else:
        _serve_here(load(place), settings, 0)


def _serve_reloading(place: AppLocation, settings: Mapping[str, Any]) -> int:
    # The child checks all settings: only it knows those of the program.
    check(settings, "command line")
    logs.configure_program()
    # Chosen once: an open page finds the inspector again after each restart.
    inspector = f"--inspector-port={_free_port()}"
    serving = ["dev", "--as-child", inspector, *as_arguments(settings), "--", place.name]
    return keep_reloading([sys.executable, "-P", "-m", "whereby_trigger", *serving], place.folder)


def _free_port() -> int:
    listener = bind(LOOPBACK, 0)
    try:
        return int(listener.getsockname()[1])
    finally:
        listener.close()


def _serve_as_child(place: AppLocation, settings: Mapping[str, Any], inspector_port: int) -> None:
    end_with_parent()
    try:
        trigger = load(place)
    except AppError as error:
        show_error(error)
        sys.exit(UNUSABLE)
    _serve_here(trigger, settings, inspector_port)


def _serve_here(trigger: Trigger, settings: Mapping[str, Any], inspector_port: int) -> None:
    """Serve only this machine, without a drain, because a restart must not wait."""
    trigger.override({"drain_timeout": 0})
    trigger.override(settings)
    if trigger.resolve().sources["host"] == "default":
        trigger.override({"host": LOOPBACK})
    if trigger.resolve().sources["inspector"] == "default":
        # Another program may have taken the port since it was chosen.
        trigger.override({"inspector": f"{LOOPBACK}:{reserve(LOOPBACK, inspector_port)}"})
    serve(trigger, settings, pastes=True)


def _can_watch() -> bool:
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        logs.configure_program()
        dev_logger.warning(NO_WATCHFILES)
        return False
    return True


PORT = 8088


@click.command()
@app_argument
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 picks one.")
@settings_options("inspector_token", "inspector_actions", "inspector_reveal")
def inspect(app: str | None, store: str | None, host: str, port: int, settings: Mapping[str, Any]) -> None:
    """Serve the inspector over a store, beside running triggers.

    With APP, predicates can be asked again without effect. Beyond this machine it needs a token to log in with.
    """
    trigger = Trigger() if app is None and (store is not None or default_app() is None) else load(locate(app))
    trigger.override({"store": store} | dict(settings))
    check_inspector(trigger.resolve().settings, host)
    logs.configure()
    asyncio.run(_serve_inspector(trigger, host, port))


async def _serve_inspector(trigger: Trigger, host: str, port: int) -> None:
    # A store that is not there, or of another schema, is said here, and not on every page.
    async with store_to_read(trigger.resolve().settings.store):
        pass
    from whereby_trigger.receive.server import Server

    server = Server(trigger.inspector, bind(host, port))
    await server.open()
    logger.info("inspector at http://%s:%d/", f"[{host}]" if ":" in host else host, server.port)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDING:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ended.set))
    try:
        await ended.wait()
    finally:
        await server.close(0)
        await trigger.inspector.close()
