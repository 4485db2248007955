"""The command line called in this process: for the many calls that end before they serve."""

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import clean_environment
from whereby_trigger import logs
from whereby_trigger.cli import main


@dataclass(frozen=True)
class Ended:
    """Hold the result of a call."""

    returncode: int
    stdout: str
    stderr: str


Call = Callable[..., Ended]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Call the command line in `tmp_path`, and remove all traces of the program that it imports."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    modules = set(sys.modules)

    def ended(*arguments: str, env: Mapping[str, str] | None = None, input: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.StringIO(input))
        monkeypatch.setattr(sys, "argv", ["whereby-trigger", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as exit:
            main()
        return Ended(int(exit.value.code or 0), *capfd.readouterr())

    yield ended
    for name in sys.modules.keys() - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    for logger in map(logging.getLogger, (logs.ROOT, logs.SERVER)):
        logger.handlers.clear()
        logger.propagate = True
