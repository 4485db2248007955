"""The journal beside a spill: what waits there is acknowledged, and is not lost with it."""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.spill.conftest import Spilling
from tests.support.arrivals import arrival
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.spill_file import SpillFile

pytestmark = pytest.mark.anyio


def remove_log(path: Path) -> None:
    path.with_name("spill.db-wal").unlink()


def remove_index(path: Path) -> None:
    path.with_name("spill.db-shm").unlink()


def remove_both(path: Path) -> None:
    remove_log(path)
    remove_index(path)


def count(path: Path) -> int:
    """Count, as after a kill, the deliveries in the files at their paths."""
    copy = path.parent / "as after a kill"
    copy.mkdir()
    for found in path.parent.glob("spill.db*"):
        shutil.copy(found, copy)
    (copy / "spill.db-shm").unlink(missing_ok=True)
    with closing(sqlite3.connect(copy / path.name)) as connection:
        return int(connection.execute("SELECT count(*) FROM deliveries").fetchone()[0])


@pytest.mark.parametrize("damage", [remove_log, remove_index, remove_both])
async def test_what_is_spilled_is_in_the_file_though_its_journal_is_removed(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "spill.db"
    spill_file = SpillFile(f"sqlite:///{path}")
    await spill_file.open()
    await spill_file.append(arrival("before"))
    damage(path)
    await spill_file.append(arrival("after"))
    assert count(path) == 2
    assert len(await spill_file.head()) == 2
    await spill_file.close()


@pytest.mark.skipif(sys.platform != "linux", reason="that the log was cut is seen on Linux only")
async def test_a_spill_whose_journal_was_cut_short_waits_for_nothing_that_is_lost(one: Spilling) -> None:
    one.store.go_down()
    for n in range(3):
        await one.spill.add(arrival(f"before {n}"))
    os.truncate(one.path.with_name("spill.db-wal"), 0)
    await one.spill.add(arrival("after"))
    one.store.come_back()
    await one.drained()
    assert "after" in await one.ids()


async def test_a_spill_with_two_names_is_refused_and_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spill.db"
    spill_file = SpillFile(f"sqlite:///{path}")
    await spill_file.open()
    os.link(path, tmp_path / "other.db")
    for refused in (spill_file.append(arrival("a")), spill_file.ping()):
        with pytest.raises(StoreUnavailable, match="has a second name, a hard link"):
            await refused
    await spill_file.close()
    with pytest.raises(StoreError, match="has a second name, a hard link"):
        await spill_file.open()
