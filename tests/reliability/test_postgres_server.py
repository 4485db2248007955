"""The server that the PostgreSQL tests run on: committed data survives whatever is done to it."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.postgres import Server, ServerFailed
from tests.support.process import Process, all_pids
from tests.support.until import until

ROOT = Path(__file__).parents[2]


def test_what_was_committed_survives_a_kill_and_a_restart(postgres: Server) -> None:
    database = name_of(postgres.create_database())
    postgres.run("CREATE TABLE kept AS SELECT 1 AS number", database)
    postgres.kill()
    assert not postgres.pids
    with pytest.raises(ServerFailed, match="Connection refused"):
        postgres.run("SELECT number FROM kept", database)
    postgres.start()
    postgres.run("INSERT INTO kept VALUES (2)", database)
    postgres.restart()
    assert postgres.run("SELECT sum(number) FROM kept", database) == "3"


def test_a_frozen_server_answers_when_it_goes_on(postgres: Server) -> None:
    postgres.pause()
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(postgres.run, "SELECT 1")
        with pytest.raises(TimeoutError):
            answer.result(0.2)
        postgres.resume()
        assert answer.result() == "1"


def test_databases_have_nothing_in_common(postgres: Server) -> None:
    for _ in range(2):
        postgres.run("CREATE TABLE kept AS SELECT 1", name_of(postgres.create_database()))


def test_it_makes_durable_what_it_commits(postgres: Server) -> None:
    assert postgres.run("SHOW fsync") == "on"
    assert postgres.run("SHOW synchronous_commit") == "on"


def test_it_shares_no_memory_that_would_outlast_a_kill(postgres: Server) -> None:
    assert postgres.run("SHOW dynamic_shared_memory_type") == "mmap"


@pytest.mark.parametrize("quick", [True, False])
def test_it_ends_with_whoever_started_it_however_that_ends_and_leaves_no_file(quick: bool) -> None:
    program = f"""if True:
        import signal
        from tests.support.postgres import Server
        with Server(quick={quick}) as server:
            print(server.folder, server.run("SHOW data_directory"), *server.pids, flush=True)
            signal.pause()
    """
    with Process([sys.executable, "-c", program], cwd=ROOT) as starter:
        folder, data, *pids = starter.line(" ").split()
        starter.kill()
        until(lambda: not set(map(int, pids)) & set(all_pids()))
        until(lambda: not Path(folder).exists() and not Path(data).parent.exists())


def name_of(url: str) -> str:
    return url.rpartition("/")[2]
