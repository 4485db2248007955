"""Tables 6 and 7 in tiny doses, and how cores are shared out."""

import pytest

from bench.cores import Cores, share
from bench.sides import NAMES, POSTGRES, SQLITE, Setting, Side
from bench.tables import replicas

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("side", [SQLITE, POSTGRES])
async def test_processes_that_share_a_store_are_measured_together(setting: Setting, side: Side) -> None:
    dose = replicas.CoresDose(webhooks=60, rounds=1, connections=4, sides=(side,))
    outcome = await replicas.run_cores(setting, dose)
    assert outcome.problems == []
    speeds, checks = outcome.grids
    assert (
        [row[0] for row in speeds.rows] == [row[0] for row in checks.rows] == [f"{NAMES[side]}, 1", f"{NAMES[side]}, 2"]
    )


async def test_replicas_and_postgresql_by_itself_are_measured(setting: Setting) -> None:
    dose = replicas.Dose(webhooks=60, rounds=1, connections=4, replicas=(1, 2), alone=(1, 2), in_flight=8)
    outcome = await replicas.run(setting, dose)
    assert outcome.problems == []
    served, alone, *_ = outcome.grids
    assert [row[0] for row in served.rows] == [row[0] for row in alone.rows] == [1, 2]
    assert all(float(str(row[1])) > 0 for row in (*served.rows, *alone.rows))


@pytest.mark.parametrize(
    ("available", "shared_out"),
    [
        ({5}, Cores((5,), 5, 5)),
        ({0, 1}, Cores((0,), 1, 1)),
        ({0, 1, 2}, Cores((0, 1), 2, 2)),
        ({0, 1, 2, 3}, Cores((0, 1), 2, 3)),
    ],
)
def test_servers_get_cores_that_neither_load_nor_database_use_as_far_as_there_are_any(
    available: set[int], shared_out: Cores
) -> None:
    assert share(available) == shared_out


def test_a_process_that_shares_its_core_is_named() -> None:
    two, many = share({0, 1}), share(range(8))
    assert [two.spread(number) for number in range(3)] == [0, 1, 0]
    assert [many.spread(number) for number in range(3)] == [0, 1, 2]
