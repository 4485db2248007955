"""The commands of docs/quickstart-compose.md, read from the page and run one after another, as somebody types them."""

import re
import subprocess
import time
from pathlib import Path
from typing import Final

from msgspec import Struct

from scripts.containers.podman import ROOT
from whereby_trigger.config import foreign_environment

PAGE: Final = ROOT / "docs/quickstart-compose.md"
CONSOLE: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT: Final = "$ "
COMMAND_WITHIN: Final = 1800.0


class Said(Struct, frozen=True):
    """Hold one command that was run: its exit code, its output on both streams, and its seconds."""

    command: str
    code: int
    output: str
    seconds: float


def commands(page: str) -> list[str]:
    """Return the commands of a page's console blocks, each with the lines that it goes on in."""
    lines = [line for block in CONSOLE.findall(page) for line in block.replace("\\\n", " ").splitlines()]
    return [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]


def type_all(typed: list[str], clone: Path, path: str) -> list[Said]:
    """Run commands in a shell that begins in `clone`, with `path` before the PATH; the first that fails is the last."""
    said: list[Said] = []
    here = str(clone)
    for command in typed:
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-uc", f"{command}\ncode=$?; pwd >{clone}.pwd; exit $code"],
            cwd=here,
            env=foreign_environment() | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_WITHIN,
            check=False,
        )
        said.append(Said(command, done.returncode, done.stdout, time.monotonic() - began))
        if done.returncode != 0:
            break
        here = Path(f"{clone}.pwd").read_text().strip()
    return said
