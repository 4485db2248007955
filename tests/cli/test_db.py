"""`db`: migrating the store and pruning it by hand."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.support.arrivals import decision
from tests.support.programs import write
from tests.support.stored import stored
from whereby_trigger.store import Arrival
from whereby_trigger.store.factory import store_for
from whereby_trigger.store.sqlite.opening import scripts

DAY = 86400.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/whereby-trigger.db"


def fill(url: str) -> None:
    """Store a decided webhook of ten days ago, one of two days ago, and a pending one of ten days ago."""

    async def fill() -> None:
        store = store_for(url)
        await store.open(lambda: None)
        for id, days in (("old", 10), ("pending", 10), ("young", 2)):
            arrival = Arrival(id, "room.client.joined", None, b"{}", time.time() - days * DAY)
            added = await store.add(arrival)
            if id != "pending":
                assert await store.decide(decision(added.seq, id))
        await store.close()

    asyncio.run(fill())


def ids(url: str) -> list[str]:
    return [record.id for record in stored(url)]


def test_migrate_creates_the_store_and_says_what_it_applied(call: Call, tmp_path: Path, url: str) -> None:
    path = tmp_path / "whereby-trigger.db"
    numbers = ", ".join(map(str, sorted(scripts())))
    assert call("db", "migrate").stdout == f"{path}: applied migrations {numbers}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert ids(url) == []
    assert call("db", "migrate").stdout == f"{path}: nothing to do, the schema is up to date\n"


def test_prune_forgets_what_is_older_than_the_retention_and_keeps_what_is_pending(call: Call, url: str) -> None:
    fill(url)
    assert "deleted 1 webhook received before 20" in call("db", "prune", "--yes").stdout
    assert ids(url) == ["pending", "young"]


def test_prune_takes_another_age(call: Call, url: str) -> None:
    fill(url)
    assert "deleted 0 webhooks" in call("db", "prune", "--yes", "--older-than", str(11 * DAY)).stdout
    assert "deleted 2 webhooks" in call("db", "prune", "--yes", "--older-than", "0").stdout
    assert ids(url) == ["pending"]


def test_prune_keeps_what_would_be_decided_again_if_a_copy_came(call: Call, url: str) -> None:
    async def fill() -> None:
        store = store_for(url)
        await store.open(lambda: None)
        for id, kept_until in (("good", time.time() + DAY), ("stale", time.time() - 1)):
            added = await store.add(Arrival(id, "x", None, b"{}", time.time() - 2 * DAY, kept_until=kept_until))
            assert await store.decide(decision(added.seq, id))
        await store.close()

    asyncio.run(fill())
    assert "deleted 1 webhook received" in call("db", "prune", "--yes", "--older-than", "0").stdout
    assert ids(url) == ["good"]


def test_prune_goes_by_the_retention_that_is_set(call: Call, url: str) -> None:
    fill(url)
    ended = call("db", "prune", "--yes", "--store", url, env={"WHEREBY_TRIGGER_RETENTION": str(DAY)})
    assert "deleted 2 webhooks" in ended.stdout


def test_prune_goes_by_the_retention_of_the_program_also_if_the_store_is_named(
    call: Call, url: str, tmp_path: Path
) -> None:
    fill(url)
    write(tmp_path, "from whereby_trigger import Trigger\ntrigger = Trigger(retention='365d')\n")
    assert "deleted 0 webhooks" in call("db", "prune", "--yes", "--store", url).stdout
    assert ids(url) == ["old", "pending", "young"]
    (tmp_path / "app.py").write_text("not Python", encoding="utf-8")
    assert "deleted 2 webhooks" in call("db", "prune", "--yes", "--store", url, "--older-than", "0").stdout


@pytest.mark.parametrize("age", ["1e12", "1e300"])
def test_prune_goes_by_a_time_before_all_calendars_as_by_any_other(call: Call, url: str, age: str) -> None:
    fill(url)
    kept = call("db", "prune", "--yes", env={"WHEREBY_TRIGGER_RETENTION": age})
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "deleted 0 webhooks" in kept.stdout
    assert call("db", "prune", "--yes", "--older-than", age).stdout == kept.stdout
    assert ids(url) == ["old", "pending", "young"]
