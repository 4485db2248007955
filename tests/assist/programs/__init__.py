"""Programs that the tests run as assistants, and as their supervisors."""

import sys
from pathlib import Path

from tests.support.presence import Presence

HERE = Path(__file__).parent


def child(presence: Presence, name: str, *options: str) -> list[str]:
    """Return the command of a Python assistant, which holds `presence` by that name while it runs."""
    return [sys.executable, "-I", "-S", str(HERE / "child.py"), str(presence.path), name, *options]


def node_child(presence: Presence, name: str) -> list[str]:
    """Return the command of a Node.js assistant, which leaves politely."""
    return ["node", str(HERE / "child.mjs"), str(presence.path), name]


def supervisor(lease: float, grace: float, *options: str, program: list[str]) -> list[str]:
    """Return the command of a supervisor that runs a program behind a guard."""
    return [sys.executable, str(HERE / "supervisor.py"), *options, str(lease), str(grace), *program]


def reader(presence: Presence, name: str, *options: str) -> list[str]:
    """Return the command of an assistant that writes to `presence` what it reads about its room."""
    return [sys.executable, "-I", "-S", str(HERE / "reader.py"), str(presence.path), name, *options]
