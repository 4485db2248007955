"""The webhook's secret in a file: a rotation takes effect without a restart, and nothing else does."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.process import Process, whereby_trigger
from tests.support.programs import HUMANS_JOIN, write
from tests.support.until import eventually
from whereby_trigger.cli.send import Signer, address_of, post
from whereby_trigger.receive import follow_secret
from whereby_trigger.testing import webhook

pytestmark = pytest.mark.anyio

OLD, NEW = "the old secret", "the new secret"


def replace(file: Path, text: str) -> None:
    """Replace a file by another one, as Kubernetes and editors do."""
    other = file.with_suffix(".new")
    other.write_text(text)
    os.replace(other, file)


async def test_a_rotation_of_the_secrets_file_takes_effect_without_a_restart(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    file = tmp_path / "secret"
    file.write_text(f"{OLD}\n")
    command = whereby_trigger("start", "--port", "0", "--host", "127.0.0.1")
    with Process(command, cwd=tmp_path, env={"WHEREBY_WEBHOOK_SECRET_FILE": str(file)}) as process:
        address = address_of(f"http://127.0.0.1:{process.port()}/")

        def status(secret: str) -> int:
            return post(address, webhook("room.client.joined").raw, Signer(secret)).status

        assert (status(OLD), status(NEW)) == (200, 401)
        replace(file, f"{NEW}\n{OLD}\n")
        process.line("2 secrets are valid now")
        assert (status(OLD), status(NEW)) == (200, 200)
        file.unlink()
        process.line("the secret that was read before stays valid")
        assert (status(OLD), status(NEW)) == (200, 200)
        file.write_text(f"\n{NEW}")
        process.line("1 secret is valid now")
        assert (status(OLD), status(NEW)) == (401, 200)
        replace(file, "\n")
        process.line("holds a blank secret")
        assert (status(NEW), status("")) == (200, 401)
        assert OLD not in process.output
        assert NEW not in process.output


class Trusting:
    """Hold the secrets that a receiver trusts."""

    def __init__(self, *secrets: str) -> None:
        self.trusted = secrets

    def trust(self, secrets: tuple[str, ...]) -> None:
        self.trusted = secrets


async def test_a_watch_that_begins_again_after_an_error_compares_with_what_is_trusted_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whereby_trigger.receive.receiver.LOOK", 0.001)
    file, receiver = tmp_path / "secret", Trusting(OLD)
    for secret in (NEW, OLD):
        replace(file, secret)
        watch = asyncio.create_task(follow_secret(str(file), receiver))
        await eventually(lambda: receiver.trusted == (file.read_text(),))
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
