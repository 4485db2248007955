"""A kill at the worst moments: everything answered is in the database in the end, once."""

import signal
import sys
from pathlib import Path

import pytest

from tests.spill.conftest import Open
from tests.support.process import Process
from tests.support.replica import ROOT

pytestmark = pytest.mark.anyio


async def test_a_kill_between_the_database_and_the_spool_counts_a_delivery_more_and_stores_none_twice(
    opened: Open, tmp_path: Path
) -> None:
    with Process([sys.executable, "-m", "tests.spill.killed", str(tmp_path), "a", "b", "c"], cwd=ROOT) as process:
        assert process.wait() == -signal.SIGKILL, process.output
    one = await opened()
    assert await one.ids() == ["a", "b", "c"]
    await one.drained()
    assert [(record.id, record.deliveries) for record in await one.records()] == [("a", 2), ("b", 2), ("c", 2)]
