"""Rows 7, 9, 28 and 32, in small doses: a database that is killed or changed, a network that fails, all together."""

from pathlib import Path

import pytest

from reliability.rows import bad_network, database, ten_minutes
from reliability.stores import PostgresStores
from tests.support.postgres import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def databases(postgres: Server) -> PostgresStores:
    return PostgresStores(postgres)


async def test_a_database_that_is_killed_and_back_soon_costs_no_delivery(
    tmp_path: Path, databases: PostgresStores
) -> None:
    result = await database.run_killed(tmp_path, databases, restarts=3, rate=30, down_for=3.0)
    assert result.problems == []


async def test_a_network_that_fails_delays_no_answer_and_loses_nothing(
    tmp_path: Path, databases: PostgresStores
) -> None:
    result = await bad_network.run(tmp_path, databases, doses=3, side_by_side=3)
    assert result.problems == []


async def test_replicas_and_the_database_may_die_under_load(tmp_path: Path, databases: PostgresStores) -> None:
    result = await ten_minutes.run(tmp_path, databases, seconds=11, rate=30, kill_every=4, restart_every=5, lease=6.0)
    assert result.problems == []
    assert result.figures["replicas killed"]
    assert result.figures["restarts of the database"]


async def test_what_others_do_to_a_database_costs_nothing_that_was_acknowledged(
    tmp_path: Path, databases: PostgresStores
) -> None:
    result = await database.run_changed(tmp_path, databases, doses=1, longest=0.3, rate=20)
    assert result.problems == []
