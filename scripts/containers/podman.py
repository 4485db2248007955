"""podman as scripts/containers.sh has set it up, each call under a timeout; and waiting for what happens elsewhere."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from whereby_trigger.config import foreign_environment
from whereby_trigger.testing import sign
from whereby_trigger.webhook import SIGNATURE_HEADER, WebhookBase

ROOT: Final = Path(__file__).resolve().parents[2]
WITHIN: Final = 120.0
BUILD_WITHIN: Final = 1200.0
LOOK: Final = 0.05
ANSWER_WITHIN: Final = 5.0
T = TypeVar("T")


class CheckFailed(Exception):
    """A required condition did not hold."""


def hold(sentence: str, *, true: object, seen: object = "") -> None:
    """Print a sentence that holds and what was seen; raises CheckFailed if it does not hold."""
    told = f"{sentence}{f': {seen}' if seen != '' else ''}"
    if not true:
        raise CheckFailed(told)
    print(f"  ok    {told}", flush=True)


def run(
    command: Sequence[str | Path],
    *,
    within: float = WITHIN,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; raises CheckFailed if it fails or takes too long, unless `check` is False."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=foreign_environment() | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise CheckFailed(f"{' '.join(map(str, command))} takes longer than {within:g} s: {late.output!r}") from None
    if check and done.returncode != 0:
        raise CheckFailed(f"{' '.join(map(str, command))} exits with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def podman(*arguments: str, within: float = WITHIN, env: Mapping[str, str] | None = None) -> str:
    """Run podman and return what it prints."""
    return run(["podman", *arguments], within=within, env=env).stdout.strip()


def succeeds(*arguments: str) -> bool:
    """Return True if podman exits with 0."""
    return run(["podman", *arguments], check=False).returncode == 0


def logs(container: str) -> str:
    """Return all that a container has printed, on both streams."""
    done = run(["podman", "logs", container])
    return done.stdout + done.stderr


def until(what: str, look: Callable[[], T], within: float = WITHIN) -> T:
    """Call `look` until it returns something true, and return that; raises CheckFailed if it takes too long."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        if time.monotonic() >= deadline:
            raise CheckFailed(f"{what}: not within {within:g} s")
        time.sleep(LOOK)
    return seen


def status(url: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None) -> int:
    """Return the status of an answer, or 0 if there is none."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN)
    try:
        connection.request(method, parts.path or "/", body, dict(headers or {}))
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()


def deliver(url: str, webhook: WebhookBase, secret: str) -> int:
    """Deliver a signed webhook once, and return the status of the answer."""
    headers = {"content-type": "application/json", SIGNATURE_HEADER: sign(secret, webhook.raw, int(time.time()))}
    return status(url, "POST", webhook.raw, headers)
