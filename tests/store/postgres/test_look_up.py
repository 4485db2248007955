"""A resolver that does not answer blocks nobody, and its late answer reaches nobody."""

import asyncio
import socket
import subprocess
import sys

import pytest

from tests.support.process import WITHIN, clean_environment
from whereby_trigger.errors import StoreError
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.postgres.address import look_up

pytestmark = pytest.mark.anyio

OPEN_WITHOUT_RESOLVER = """
import asyncio, socket, sys, threading
from whereby_trigger.cli import main
from whereby_trigger.store.postgres import connection

connection.CONNECT_WITHIN = 0.1
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
sys.argv = ["whereby-trigger", "events", "list", "--store", "postgresql://db.example/x"]
main()
"""


async def test_a_name_that_is_known_is_found_whichever_of_several_it_is() -> None:
    await look_up(())
    await look_up(("127.0.0.1",))
    await look_up(("no.such.host.invalid", "127.0.0.1"))


async def test_names_that_are_all_unknown_are_an_error() -> None:
    with pytest.raises(socket.gaierror):
        await look_up(("no.such.host.invalid",))


@pytest.mark.parametrize("host", ["db..internal", "d" * 64 + ".example"])
async def test_a_name_that_cannot_be_one_is_said_to_be_none_at_once(host: str) -> None:
    with pytest.raises(UnicodeError):
        await asyncio.wait_for(look_up((host,)), WITHIN)
    with pytest.raises(StoreError, match=r"cannot be found: .*; correct its URL"):
        await PostgresStore(f"postgresql://{host}/x").open_readonly()


def test_a_resolver_that_does_not_answer_is_left_and_the_program_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_RESOLVER],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "Error: the store postgresql://db.example/x cannot be reached: no answer within 0.1 s; "
        "check that it runs, and that host and port are right\n"
    )
