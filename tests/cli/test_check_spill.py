"""`check` on the spill: whether it is usable, and what waits in it."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_check import findings
from tests.support.arrivals import arrival
from tests.support.programs import HUMANS_JOIN, free_port, write
from whereby_trigger.store.spill_file import SpillFile

pytestmark = pytest.mark.usefixtures("program")


@pytest.fixture
def program(tmp_path: Path) -> None:
    write(tmp_path, HUMANS_JOIN)


def spill_of(call: Call, spill: str, **env: str) -> tuple[bool, str]:
    """Return what `check` finds about a spill whose database is unreachable."""
    database = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    found: tuple[bool, str] = findings(call, "--port", "0", "--store", database, "--spill", spill)[1]["spill"]
    return found


def fill(path: Path, *ids: str, refused: int = 0) -> None:
    async def add() -> None:
        spill_file = SpillFile(f"sqlite:///{path}")
        await spill_file.open()
        await asyncio.gather(*(spill_file.append(arrival(id)) for id in ids))
        await spill_file.close()

    asyncio.run(add())
    if refused:
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("UPDATE deliveries SET refused = 'because' WHERE seq <= ?", (refused,))


def test_one_that_is_not_there_yet_is_tried_beside_its_place_and_not_created(call: Call, tmp_path: Path) -> None:
    said = spill_of(call, f"sqlite:///{tmp_path}/spill.db")
    assert said == (True, f"{tmp_path}/spill.db does not exist yet and can be created")
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["app.py"]


def test_one_that_is_there_tells_how_many_wait_in_it(call: Call, tmp_path: Path) -> None:
    fill(tmp_path / "spill.db", "a", "b", "c")
    said = spill_of(call, "sqlite:///spill.db")
    assert said == (True, f"{tmp_path}/spill.db takes writes; deliveries waiting in it: 3")


def test_one_that_a_running_trigger_has_tells_it_too(call: Call, tmp_path: Path) -> None:
    fill(tmp_path / "spill.db", "a")

    async def check_beside() -> tuple[bool, str]:
        spill_file = SpillFile(f"sqlite:///{tmp_path}/spill.db")
        await spill_file.open()
        try:
            return await asyncio.to_thread(spill_of, call, "sqlite:///spill.db")
        finally:
            await spill_file.close()

    said = asyncio.run(check_beside())
    assert said == (True, f"{tmp_path}/spill.db is in use by a running trigger; deliveries waiting in it: 1")


def test_what_the_database_refused_is_a_problem(call: Call, tmp_path: Path) -> None:
    fill(tmp_path / "spill.db", "a", "b", refused=1)
    ok, says = spill_of(call, "sqlite:///spill.db")
    assert not ok
    assert says.endswith("takes writes; deliveries waiting in it: 1, refused by the database: 1")


@pytest.mark.parametrize(
    ("spill", "says"),
    [
        ("sqlite:///no/folder/spill.db", "does not exist: create it, or set spill= to another place"),
        ("sqlite:///app.py", "is damaged or is no SQLite file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_one_that_cannot_be_used_is_a_problem_with_what_to_do(call: Call, spill: str, says: str) -> None:
    ok, detail = spill_of(call, spill)
    assert not ok
    assert says in detail


def test_beside_a_store_that_is_a_file_it_is_a_problem_and_says_why(call: Call) -> None:
    ok, says = findings(call, "--port", "0", "--spill", "sqlite:///spill.db")[1]["spill"]
    assert not ok
    assert "is for a database that may be unavailable, but store 'sqlite:///whereby-trigger.db' is a file" in says


def test_without_one_nothing_is_said_of_it(call: Call) -> None:
    assert "spill" not in findings(call, "--port", "0")[1]
    assert (
        "spill" not in findings(call, "--port", "0", "--spill", "off", env={"WHEREBY_TRIGGER_SPILL": "sqlite:///x"})[1]
    )
