"""A database that cannot be the store: each command prints in a line what, why and what to do, and no password."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.postgres import HOST, Server
from tests.support.process import WITHIN, clean_environment
from tests.support.programs import HUMANS_JOIN, write

ROOM = "https://acme.whereby.com/visit-1"
PASSWORD = "hush-9f3c"
QUICKLY = 15.0
"""Seconds; connecting to a host that does not answer ends after 4, and this machine may be busy."""

WRONG, FAILED = 2, 1

COMMANDS = [
    *("start --port 0", "dev --no-reload --port 0", "db migrate", "db prune", "events list", "events show one"),
    *("events replay one", "assistants list", f"assistants stop {ROOM}", f"assistants start {ROOM}"),
]
CASES = [
    ("postgresql://postgres:{password}@{there}", WRONG, "check user and password"),
    ("postgresql://{password}/x@{there}", WRONG, "with reserved characters as %XX"),
    ("{url}_none", WRONG, "create the database, or name another"),
    ("{url}?nonsense=1", WRONG, "leave that option out of the URL"),
    ("{url}?synchronous_commit=off", WRONG, "see that no URL option sets it"),
    ("{url}?default_transaction_read_only=on", FAILED, "name an endpoint that takes writes"),
    ("postgresql://?service=none", WRONG, "add [none] to it"),
    ("postgresql://app:{password}@127.0.0.1:1/x", FAILED, "check that it runs, and that host and port are right"),
    ("postgresql://app:{password}@no.such.host.invalid/x", FAILED, "check that it runs, and that host and port"),
    ("postgresql://app:{password}@127.0.0.1:{silent}/x", FAILED, "no answer within 4 s; check that it runs"),
]


@pytest.fixture
def silent() -> Iterator[int]:
    """Return a port that accepts connections and never answers."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("form", "code", "says"), CASES, ids=[form for form, _, _ in CASES])
def test_start_says_it_in_a_line_soon(
    call: Call, postgres: Server, silent: int, tmp_path: Path, form: str, code: int, says: str
) -> None:
    write(tmp_path, HUMANS_JOIN)
    there = f"{HOST}:{postgres.port}/postgres"
    began = time.monotonic()
    ended = call("start", "--port", "0", "--store", formed(form, postgres, there=there, silent=silent))
    assert time.monotonic() - began < QUICKLY
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert says in ended.stderr
    check_one_line(ended.stderr, postgres)


@pytest.mark.parametrize(("form", "code"), [("{url}_none", WRONG), ("postgresql://u:{password}@127.0.0.1:1/", FAILED)])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_it(
    call: Call, postgres: Server, tmp_path: Path, command: str, form: str, code: int
) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = call(*command.split(), "--store", formed(form, postgres))
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    check_one_line(ended.stderr, postgres)


def test_check_says_it_among_the_rest(call: Call, postgres: Server, tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    ended = call("check", "--port", "0", "--store", formed("{url}_none", postgres))
    assert (ended.returncode, ended.stderr) == (1, "")
    assert [line.split()[:2] for line in ended.stdout.splitlines() if "ok" not in line] == [["problem", "store"]]
    assert "create the database, or name another" in ended.stdout
    assert postgres.password not in ended.stdout


@pytest.mark.parametrize(
    "form", ["postgresql://u:{password}@h/x?password={password}", "postgresql:u:{password}@h/x", "{url}/{password}@x"]
)
def test_config_shows_no_password_of_a_url_whether_right_or_wrong(call: Call, postgres: Server, form: str) -> None:
    ended = call("config", env={"WHEREBY_TRIGGER_STORE": formed(form, postgres)})
    assert ended.returncode == 0
    assert not any(secret in ended.stdout + ended.stderr for secret in (PASSWORD, postgres.password))


def test_without_the_driver_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)
    program = "import sys; sys.modules['asyncpg'] = None; from whereby_trigger.cli import main; main()"
    arguments = ["start", "--port", "0", "--store", "postgresql://db.example/x"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert ended.returncode == WRONG
    assert ended.stderr == ("Error: a store on PostgreSQL needs its driver: pip install 'whereby-trigger[postgres]'\n")


def formed(form: str, postgres: Server, **names: object) -> str:
    return form.format(url=postgres.url(), password=PASSWORD, **names)


def check_one_line(said: str, postgres: Server) -> None:
    assert said.startswith("Error: the store")
    assert len(said.splitlines()) == 1
    assert not any(secret in said for secret in (PASSWORD, postgres.password, "Traceback"))
