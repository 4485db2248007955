"""`whereby-trigger dev`: serve on this machine only, and restart when a file changes."""

import logging
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
from whereby_trigger.cli.app import AppLocation, app_argument, load, locate
from whereby_trigger.cli.options import as_arguments, settings_options
from whereby_trigger.cli.output import WRONG_CALL, show_error
from whereby_trigger.cli.serve import serve
from whereby_trigger.config import check
from whereby_trigger.errors import AppError
from whereby_trigger.process import ENDING
from whereby_trigger.trigger import Trigger

if TYPE_CHECKING:
    from watchfiles import Change

STDIN = 0


class Leashed:
    """A child process that ends when it is let go of, and when its parent dies, however it dies."""

    def __init__(self, command: Sequence[str]) -> None:
        # In a group of its own, since Ctrl-C reaches a whole group: the child hears of it from its parent alone.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    @property
    def ended(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def end(self, within: float) -> None:
        """Let go of it, and kill it if it has not ended after `within` seconds."""
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
    """Have this process, a leashed child, get a SIGTERM when its parent lets go of it or dies."""
    threading.Thread(target=_await_release, name="whereby-trigger-leash", daemon=True).start()


def _await_release() -> None:
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


logger = logging.getLogger("whereby_trigger.dev")

UNUSABLE = 3
"""The exit code of a child whose program cannot be imported as it stands: another version of it may do."""

LOOK_EVERY = 200
GATHER_FOR = 100
"""Milliseconds between looks at the child, and for which changes are gathered after the first."""

END_WITHIN = 3.0
"""Seconds that a program has to end before it is killed: nothing that was acknowledged is lost by that."""


def keep_reloading(command: Sequence[str], folder: Path) -> int:
    """Run a command, anew after each change of a Python file in a folder, until a signal; give the exit code.

    Pending webhooks survive in the store. What ends by itself waits for a change, unless its very call is wrong.
    """
    from watchfiles import PythonFilter, watch

    with _signalled() as stop:
        child = Leashed(command)
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
                    logger.info("%s changed: restarting", _names(changes, folder))
                    child.end(END_WITHIN)
                    child, first, waiting = Leashed(command), False, False
                elif not waiting and child.ended is not None:
                    if child.ended == 0 or (first and child.ended == WRONG_CALL):
                        return child.ended
                    logger.warning("it ended with exit code %d: waiting for a change in %s", child.ended, folder)
                    waiting = True
        finally:
            child.end(END_WITHIN)
    return 0


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; a second one has its usual effect."""
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


def _serve_reloading(place: AppLocation, settings: Mapping[str, Any]) -> int:

    # What the program and the environment say as well is judged by the child: only it knows both.
    check(settings, "command line")
    logs.configure()
    serving = ["dev", "--leashed", *as_arguments(settings), "--", place.name]
    return keep_reloading([sys.executable, "-P", "-m", "whereby_trigger.cli", *serving], place.folder)


def _serve_leashed(place: AppLocation, settings: Mapping[str, Any]) -> None:

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
