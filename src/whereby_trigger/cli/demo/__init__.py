"""The demo: real servers, scripted meetings sent to them, kills at the worst moment, and checks on the outcome.

A scenario is a file of its own; what both share is here.
"""

import asyncio
import secrets
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import click
import msgspec
from msgspec import Struct, structs

from whereby_trigger import timeline
from whereby_trigger.cli.arguments import store_to_read
from whereby_trigger.cli.output import show_table
from whereby_trigger.cli.rooms import show_timeline
from whereby_trigger.errors import StoreError
from whereby_trigger.store import Query, Record, State, Store
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite import SqliteStore
from whereby_trigger.testing.program import Program, until
from whereby_trigger.testing.sender import Address, Sender
from whereby_trigger.webhook import RoomWebhook

HAPPENS_WITHIN = 10.0
"""Seconds for which something is waited for; the checks find what has not happened."""

LEASE = 6.0
"""Seconds for which a silent replica counts as alive: short, because the demo waits for it after a kill."""

Checks = Mapping[str, tuple[Any, Any]]
"""Sentences that must be true, each with what it expects and what was observed."""


class Happening(Struct, frozen=True):
    """Describe one delivery: what happens, what is odd about it, and what must become of its webhook.

    `heard` is the attempt that its listener must be called for, if any. `replicas`, counted from 1, receive it at the
    same time.
    """

    happening: str
    webhook: RoomWebhook
    oddity: str = ""
    state: State | None = None
    heard: int | None = None
    answer: int = 200
    replicas: tuple[int, ...] = (1,)

    def again(self, happening: str) -> "Happening":
        """Return the same delivery once more."""
        return structs.replace(self, happening=happening, oddity="duplicate")


class Scenario(ABC):
    """Hold servers in a folder, whose program writes a notebook there, and what is observed while they run.

    `store` is the URL of the store to use, by default a new file. `sent` pairs each delivery with the status of its
    answer, and `records` is what became of it, in order of arrival.
    """

    program: str

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.sent: list[tuple[Happening, int]] = []
        self.records: list[Record] = []
        self._folder = folder
        self._url = store or f"sqlite:///{quote(str(folder / 'demo.db'))}"
        self._waits_for_lease = not self._url.startswith("sqlite:")
        self._secret = secrets.token_hex(16)
        self._servers: dict[int, Program] = {}
        self._senders: dict[int, Sender] = {}
        self._began = time.time()
        self._store: Store

    async def run(self) -> None:
        """Play the scenario, and show what `rooms show` says of its rooms."""
        await store_for(self._url).migrate()
        async with store_to_read(self._url) as self._store:
            try:
                await self._play()
            finally:
                await asyncio.gather(*(server.kill() for server in self._servers.values()))
            self.records = await self._stored()
            for key in sorted({record.room for record in self.records if record.room is not None}):
                show_event(f"\n$ whereby-trigger rooms show {key}")
                show_timeline(await timeline.of_room(self._store, key, now=time.time()))

    @abstractmethod
    async def _play(self) -> None:
        """Start servers, deliver to them, and keep what is observed."""

    @abstractmethod
    def checks(self) -> Checks:
        """Compare what was observed with what must be true."""

    async def _start(self, replica: int = 1) -> Program:
        """Start a server as the replica with a number, which counts from 1."""
        settings = {"STORE": self._url, "HOST": "127.0.0.1", "PORT": "0"}
        if self._waits_for_lease:
            settings["LEASE_TTL"] = str(LEASE)
        env = {f"WHEREBY_TRIGGER_{name}": value for name, value in settings.items()}
        env["WHEREBY_WEBHOOK_SECRET"] = self._secret
        # -P: the program must not import the demo's own modules.
        command = [sys.executable, "-P", str(Path(__file__).with_name(self.program)), str(replica)]
        server = await Program.start(command, cwd=self._folder, env=env)
        self._servers[replica] = server
        self._senders[replica] = Sender(Address.local(await server.listening()), self._secret, reuse=False)
        return server

    async def _deliver(self, *steps: Happening) -> None:
        for step in steps:
            await asyncio.gather(*(self._post(step, self._senders[replica]) for replica in step.replicas))

    async def _post(self, step: Happening, sender: Sender) -> None:
        (response,) = await sender.deliver(step.webhook.raw, forged=step.answer == 401, retries=0)
        self.sent.append((step, response.status))
        answer = click.style(str(response.status), fg="green" if response.status == 200 else "red")
        told = f"  {step.happening:46} {answer} {response.seconds * 1000:5.1f} ms"
        click.echo(f"{told}  {click.style(step.oddity, fg='magenta')}" if step.oddity else told)

    async def _until(self, happened: Callable[[], Any]) -> None:
        await until(happened, HAPPENS_WITHIN)

    async def _decided(self) -> bool:
        return not await self._store.find(Query(state=State.PENDING, limit=1))

    async def _stored(self) -> list[Record]:
        """Read what was stored since the scenario began, in order of arrival."""
        return (await self._store.find(Query(since=self._began)))[::-1]

    def _noted(self, kind: Any) -> list[Any]:
        """Read the notebook; `kind` is the type of each line."""
        notebook = self._folder / "notebook.txt"
        return msgspec.json.Decoder(kind).decode_lines(notebook.read_bytes()) if notebook.exists() else []


def show_event(text: str) -> None:
    """Print what happened to a server or the database."""
    click.secho(text, bold=True)


async def run_scenario(make: Callable[[Path, str | None], Scenario], store: str | None) -> int:
    """Run a scenario in a new folder, and print it with its checks; return the exit code."""
    with TemporaryDirectory(prefix="whereby-trigger-demo-") as folder:
        began, scenario = time.monotonic(), make(Path(folder), store)
        await scenario.run()
        return conclude(scenario.checks(), time.monotonic() - began)


def failed(checks: Checks) -> Checks:
    """Return the checks whose sentence is not true."""
    return {sentence: pair for sentence, pair in checks.items() if pair[0] != pair[1]}


def conclude(checks: Checks, seconds: float) -> int:
    """Print the checks, with what was expected of each that failed; return the exit code."""
    wrong = failed(checks)
    click.echo()
    show_table([("failed" if sentence in wrong else "ok", sentence) for sentence in checks], ("state", "check"))
    for sentence, (expected, observed) in wrong.items():
        click.echo(f"\n{sentence}:\n  expected {expected}\n  observed {observed}")
    result = f"{len(wrong)} of {len(checks)} checks failed" if wrong else f"All {len(checks)} checks passed"
    click.echo("\n" + click.style(result, fg="red" if wrong else "green", bold=True) + f" in {seconds:.1f} s\n")
    return 1 if wrong else 0


async def empty_store_at(url: str) -> str:
    """Prepare the store at a URL, and return its URL for programs that run in any folder.

    Raises StoreError if it cannot be used or is not empty.
    """
    await store_for(url).migrate()
    async with store_to_read(url) as store:
        if await store.find(Query(limit=1)) or await store.rooms(limit=1):
            raise StoreError(
                f"the store {store.location} is not empty, and the demo counts what it holds: name an empty store"
            )
        return f"sqlite:///{quote(store.location)}" if isinstance(store, SqliteStore) else url


def run(url: str | None = None) -> int:
    """Run the demo on the terminal; return 0 if all checks passed, else 1.

    It uses new SQLite files, or the empty store at a URL. Raises StoreError if that cannot be used or is not empty.
    """
    from whereby_trigger.cli.demo.crash import CrashScenario
    from whereby_trigger.cli.demo.replicas import ReplicaScenario

    async def both() -> int:
        store = None if url is None else await empty_store_at(url)
        return max(await run_scenario(CrashScenario, store), await run_scenario(ReplicaScenario, store))

    code = asyncio.run(both())
    if code == 0:
        click.echo("Try it with a trigger of your own, in app.py, and with simulated meetings:")
        click.echo("  whereby-trigger dev\n  whereby-trigger simulate   (in another terminal)")
    return code
