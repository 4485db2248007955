"""Row 38: `forget`, `db prune` and `events export` are killed with -9 at any step; the next call finishes.

The calls kill themselves, in a program: `python -m reliability.rows.killed_commands`. A step is each moment
before and after a statement to a store, while SQLite executes one, while PostgreSQL has one and has not answered, and
before and after a file is renamed. The program imports the command line once, and each call is a separate process. A
call is a line of JSON on standard input: `arguments`, `step` (0 to count the steps without dying) and `output`, a file
for what it prints. The answer is a line with `code`, -9 if it was killed, and `steps`.
"""

import asyncio
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import asyncpg
from msgspec import structs

from reliability import ROOT
from reliability.boundaries import wrap
from reliability.row import Figures, Result
from reliability.stores import STORE_FILE, PostgresStores, Stores, damage
from tests.store.test_privacy import MARKS, body
from tests.support.arrivals import NOW, ROOM, arrival, decision
from tests.support.postgres import database_of
from tests.support.process import clean_environment
from tests.support.until import until
from whereby_trigger.cli import COMMANDS, main
from whereby_trigger.store import (
    ActionKind,
    ActionRecord,
    Count,
    Query,
    Record,
    RoomMove,
    RoomRequest,
    RoomState,
    RunReport,
    Store,
    privacy,
)
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.spill_file import SpillFile

INSTRUCTIONS = 500
"""Instructions of SQLite's virtual machine that count as one step of a statement."""

PAGE = 4
"""Webhooks that are read and changed together: a few dozen are then several pages."""

EXPORTED = "mark.jsonl"
CALLS = {
    "forget --external-id": ("forget", "--external-id", "mark-external", "--yes"),
    "forget --room": ("forget", "--room", "/visit-1", "--yes"),
    "db prune": ("db", "prune", "--older-than", "0", "--yes"),
    "events export": ("events", "export", "--external-id", "mark-external"),
}
OF_EACH = 5
"""Webhooks that name the person by an external id, by a participant id alone, and that name somebody else."""

AT_WORK = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
LONG_AGO = 1_000_000_000.0


class Steps:
    """Count steps, and kill this process at the n-th."""

    def __init__(self, last: int) -> None:
        self.count, self._last = 0, last

    def step(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        self._watch_sqlite()
        self._watch_postgresql()
        for name in ("replace", "unlink"):
            wrap(os, name, self.step, self.step)

    def _watch_sqlite(self) -> None:
        step = self.step

        class Connection(sqlite3.Connection):
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                super().__init__(*arguments, **keywords)
                self.set_progress_handler(step, INSTRUCTIONS)

            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                step()
                cursor = super().execute(*arguments)
                step()
                return cursor

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                step()
                cursor = super().executemany(*arguments)
                step()
                return cursor

        sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    def _watch_postgresql(self) -> None:
        for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
            setattr(asyncpg.Connection, name, self._watched(getattr(asyncpg.Connection, name)))

    def _watched(self, original: Any) -> Any:
        @functools.wraps(original)
        async def call(*arguments: Any, **keywords: Any) -> Any:
            self.step()
            coming = asyncio.ensure_future(original(*arguments, **keywords))
            # The statement is sent by now, and cannot be answered yet.
            await asyncio.sleep(0)
            self.step()
            answer = await coming
            self.step()
            return answer

        return call


class Killed(NamedTuple):
    """Hold the result of a call: its exit code, -9 if it was killed, its steps if not, and its output."""

    code: int
    steps: int
    output: str


class Caller:
    """Call the command line in processes that kill themselves, for a `with` block."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._output = folder / "printed"
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "reliability.rows.killed_commands"],
            cwd=ROOT,
            env=clean_environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, step: int = 0) -> Killed:
        """Call the command line, and kill it at a step; 0 is none."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        said = {"arguments": arguments, "step": step, "output": str(self._output)}
        self._popen.stdin.write(json.dumps(said) + "\n")
        self._popen.stdin.flush()
        ended = json.loads(self._popen.stdout.readline())
        return Killed(output=self._output.read_text(), **ended)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.communicate()


def _call_and_die(arguments: list[str], step: int, output: str) -> dict[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        steps = Steps(step)
        steps.watch()
        sys.argv = ["whereby-trigger", *arguments]
        code = 1
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os.write(writing, str(steps.count).encode())
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        return {"code": os.waitstatus_to_exitcode(status), "steps": int(told.read() or 0)}


async def run(folder: Path, stores: Stores, *, kills: int, calls: tuple[str, ...] = tuple(CALLS)) -> Result:
    """Kill each command at some steps, evenly spread over all its steps, and call it once more each time."""
    return await asyncio.to_thread(_run, folder, stores, kills, calls)


def _run(folder: Path, stores: Stores, kills: int, calls: tuple[str, ...]) -> Result:
    figures: Figures = {}
    problems: list[str] = []
    for name in calls:
        place = folder / name.replace(" ", "-")
        place.mkdir()
        # A person in the spill stays there: the command exits with 1, as it should.
        filled = Filled(stores, place, spilled=name == "forget --room")
        with Caller(place, filled.env) as caller:
            filled.make()
            steps = _called(name, filled, caller).steps
            at = sorted({1 + steps * (2 * number + 1) // (2 * kills) for number in range(kills)})
            dead = 0
            for step in at:
                filled.make()
                killed = _called(name, filled, caller, step)
                filled.wait_for_the_server()
                again = _called(name, filled, caller)
                dead += killed.code == -9
                problems += [
                    f"{name}, killed at step {step} of {steps}: {wrong}" for wrong in _wrong(name, filled, again)
                ]
        figures |= {f"{name}: steps": steps, f"{name}: killed": dead}
    return Result(figures, problems)


def _called(name: str, filled: "Filled", caller: Caller, step: int = 0) -> Killed:
    out = ("--out", str(filled.here / EXPORTED)) if name == "events export" else ()
    return caller.call(*CALLS[name], *out, "--store", filled.url, step=step)


def _wrong(name: str, filled: "Filled", again: Killed) -> Iterator[str]:
    """Yield what is wrong after a command was called again."""
    if again.code != 0:
        yield f"the next call exits with {again.code}: {again.output}"
    records = filled.records()
    if name == "events export":
        exported = (filled.here / EXPORTED).read_text().count("mark-metadata")
        if exported != 2 * OF_EACH:
            yield f"{exported} webhooks of {2 * OF_EACH} are in the file"
    else:
        for file, content in filled.contents():
            if found := [mark for mark in MARKS if mark.encode() in content]:
                yield f"{file} holds {found}"
    left = {"forget --room": 0, "db prune": 0}.get(name, 3 * OF_EACH)
    if len(records) != left:
        yield f"{len(records)} webhooks of {left} are stored"
    if left and sum(b"else-metadata" in record.body for record in records) != OF_EACH:
        yield "webhooks that name somebody else have changed"
    if strays := [file.name for file in filled.here.iterdir() if not file.name.startswith(filled.own)]:
        yield f"files are left: {strays}"


class Filled:
    """Create stores with the same content, one after the other; the last one's files are in the folder `here`."""

    def __init__(self, stores: Stores, folder: Path, *, spilled: bool) -> None:
        self.here, self._first = folder / "here", folder / "first"
        self.own = (STORE_FILE, "spill.db", EXPORTED) if spilled else (STORE_FILE, EXPORTED)
        self.url = ""
        self._server = stores.server if isinstance(stores, PostgresStores) else None
        self._template = stores.new(self._first)
        asyncio.run(_fill(store_for(self._template)))
        self.env = {}
        if self._server is not None and spilled:
            asyncio.run(_fill_spill(SpillFile(f"sqlite:///{self._first}/spill.db")))
            self.env = {"WHEREBY_TRIGGER_SPILL": f"sqlite:///{self.here}/spill.db"}

    def make(self) -> None:
        """Create the next store."""
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self._first, self.here)
        if self._server is None:
            self.url = f"sqlite:///{self.here / STORE_FILE}"
        else:
            self.url = self._server.create_database(template=database_of(self._template))

    def wait_for_the_server(self) -> None:
        """Wait until a server has noticed the death: until then, the next call names the dead one and exits with 1."""
        if self._server is not None:
            server, database = self._server, database_of(self.url)
            until(lambda: server.run(AT_WORK, database) == "0")

    def records(self) -> list[Record]:
        """Read every stored webhook; raises sqlite3.DatabaseError if a file is damaged."""
        if self._server is None and (wrong := damage(self.here / STORE_FILE)):
            raise sqlite3.DatabaseError(wrong)

        async def read() -> list[Record]:
            store = store_for(self.url)
            await store.open_readonly()
            try:
                return await store.find(Query())
            finally:
                await store.close()

        return asyncio.run(read())

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Yield the names and bytes of all files that may hold stored data."""
        files = list(self.here.iterdir())
        if self._server is not None:
            database = database_of(self.url)
            self._server.run("CHECKPOINT", database)
            number = self._server.run("SELECT oid FROM pg_database WHERE datname = current_database()", database)
            files += (self._server.data / "base" / number).iterdir()
        return ((file.name, file.read_bytes()) for file in files if file.is_file())


async def _fill(store: Store) -> None:
    await store.open(lambda: None)
    for number in range(OF_EACH):
        for who, external in (("unnamed", ""), ("named", "mark-external"), ("else", "mark-external")):
            about, error = body(f"{who}-{number}", external=external), "listener f: ValueError: Mårk-Näme"
            if who == "else":
                about, error = about.replace("Mårk-Näme".encode(), b"Else").replace(b"mark-", b"else-"), "f: Else"
            counted = Count(ROOM, number, 1, NOW + number, "s1")
            came = arrival(f"{who}-{number}", body=about, received_at=LONG_AGO)
            added = await store.add(structs.replace(came, count=counted))
            await store.decide(decision(added.seq, f"{who}-{number}", errors=(error,), decided_at=LONG_AGO))
    await store.request(RoomRequest(ROOM, f"https://{ROOM}", "named-1", "s1", LONG_AGO))
    (taken,) = await store.take(1)
    said = RunReport(exception="ValueError", output="Mårk-Näme left")
    await store.move(RoomMove(taken.id, RoomState.FAILED, "refused: Mårk-Näme is here", run=said))
    await store.add_action(ActionRecord("action", LONG_AGO, "inspector", ActionKind.START, ROOM, None))
    await store.close()


async def _fill_spill(file: SpillFile) -> None:
    await file.open()
    for number in range(OF_EACH):
        await file.append(arrival(f"spilled-{number}", body=body(f"spilled-{number}")))
        await file.append(arrival(f"else-{number}", room="acme.whereby.com/else"))
    await file.close()


if __name__ == "__main__":
    for command in ("forget", "db", "events"):
        COMMANDS[command]
    privacy.AT_ONCE = PAGE  # type: ignore[misc]
    for line in sys.stdin:
        print(json.dumps(_call_and_die(**json.loads(line))), flush=True)
