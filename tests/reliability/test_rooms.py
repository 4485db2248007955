"""Rows 11 to 17, 26, 30, 33, 34 and 36, in small doses: assistants on replicas that die, freeze or run short."""

import shutil
from pathlib import Path

import pytest

from reliability.assistants import Tick, overlaps
from reliability.rows import (
    drains,
    following_meetings,
    frozen_replicas,
    killed_replicas,
    many_rooms,
    poison,
    shortages,
)
from reliability.stores import PostgresStores, SqliteStores, Stores
from tests.support.postgres import Server

pytestmark = pytest.mark.anyio


async def test_an_event_that_reaches_every_replica_is_one_row_and_one_assistant(tmp_path: Path, stores: Stores) -> None:
    result = await many_rooms.run_everybody(tmp_path, stores, events=200, rooms=20)
    assert result.problems == []


async def test_a_killed_replicas_assistants_are_back_within_two_seconds(tmp_path: Path, files: SqliteStores) -> None:
    result = await killed_replicas.run(tmp_path, files, kills=2, assistants=6, bound=2.0)
    assert result.problems == []


async def test_where_only_the_lease_tells_they_are_back_a_second_after_its_end(
    tmp_path: Path, postgres: Server
) -> None:
    result = await killed_replicas.run(tmp_path, PostgresStores(postgres), kills=1, assistants=6, bound=7.0, lease=6.0)
    assert result.problems == []


async def test_a_replica_that_dies_at_any_boundary_of_a_rooms_way_leaves_it_to_another(
    tmp_path: Path, stores: Stores
) -> None:
    result = await killed_replicas.run_at_boundaries(tmp_path, stores, deaths=1)
    assert result.problems == []


async def test_a_frozen_replica_never_shares_a_room_with_its_successor(tmp_path: Path, files: SqliteStores) -> None:
    result = await frozen_replicas.run(tmp_path, files, freezes=1)
    assert result.problems == []


async def test_nothing_of_an_assistant_outlives_its_supervisor(tmp_path: Path, files: SqliteStores) -> None:
    forms = 3 if shutil.which("npm") else 2
    result = await frozen_replicas.run_orphans(tmp_path, files, doses=forms)
    assert [problem for problem in result.problems if "npm is missing" not in problem] == []


async def test_nobody_is_in_a_room_that_what_a_killed_replica_left_has_not_left_yet(
    tmp_path: Path, files: SqliteStores
) -> None:
    result = await killed_replicas.run_slow_leavers(tmp_path, files, kills=2, assistants=2)
    assert result.problems == []


async def test_a_rolling_deploy_loses_nothing_and_hands_over_in_time(tmp_path: Path, files: SqliteStores) -> None:
    result = await drains.run_deploys(tmp_path, files, deploys=2, blocking_deploys=1)
    assert result.problems == []


async def test_a_poisoned_room_harms_no_other(tmp_path: Path, stores: Stores) -> None:
    result = await poison.run(tmp_path, stores, doses=12, backoff=(0.1, 0.1, 0.1))
    assert result.problems == []


async def test_a_replica_that_is_out_of_something_goes_on_when_there_is_some_again(
    tmp_path: Path, stores: Stores
) -> None:
    result = await shortages.run(tmp_path, stores, doses=1, shortest=1.5, longest=2.0, side_by_side=7)
    assert result.problems == []


async def test_user_code_in_every_thread_of_the_loop_holds_up_no_drain(tmp_path: Path, stores: Stores) -> None:
    result = await drains.run_full_executors(tmp_path, stores, drains=1, margin=3.0)
    assert result.problems == []


async def test_rooms_leave_nothing_behind_in_the_process(tmp_path: Path, files: SqliteStores) -> None:
    result = await many_rooms.run(tmp_path, files, rooms=200)
    assert result.problems == []


async def test_of_meetings_that_follow_each_other_the_newest_is_served_though_replicas_are_killed(
    tmp_path: Path, files: SqliteStores
) -> None:
    result = await following_meetings.run(tmp_path, files, series_of_meetings=8, at_a_time=8, kill_every=2.0)
    assert result.problems == []


async def test_of_meetings_over_postgresql_the_newest_is_served(tmp_path: Path, postgres: Server) -> None:
    result = await following_meetings.run(
        tmp_path, PostgresStores(postgres), series_of_meetings=8, at_a_time=8, kill_every=4.0, lease=6.0
    )
    assert result.problems == []


def test_a_tick_after_a_successors_first_is_an_overlap() -> None:
    old, new = Tick(1.0, 10, 1, "/a"), Tick(2.0, 20, 2, "/a")
    late = Tick(3.0, 10, 1, "/a")
    assert overlaps([old, new]) == []
    assert overlaps([new, old, late]) == [late]
