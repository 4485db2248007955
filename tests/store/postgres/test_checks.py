"""The checks of a database: each finding is a sentence, and what cannot be trusted is refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.store.conftest import Replicas
from tests.support.postgres import Server, database_of
from whereby_trigger.errors import StoreError, StoreUnavailable
from whereby_trigger.store.postgres import PostgresStore
from whereby_trigger.store.postgres.opening import Remark, judge

pytestmark = pytest.mark.anyio

SENT = 1000.0
FACTS = {
    "number": 140_005,
    "version": "14.5",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "encoding": "UTF8",
    "standby": False,
    "read_only": "off",
    "role": "app",
    "database": "webhooks",
    "now": SENT,
    "creates": True,
    "there": False,
    "uses": None,
}


def judged(lacking: tuple[str, ...] = (), **facts: Any) -> dict[str, Remark]:
    """Judge facts that are in order except for these, read within a fifth of a second; return remarks by subject."""
    remarks = judge(FACTS | facts, lacking, SENT - 0.1, SENT + 0.1, "postgresql://app@db.example/webhooks")
    return {remark.about: remark for remark in remarks}


def test_what_is_in_order_is_said_of_each_side() -> None:
    assert {about: remark.words for about, remark in judged().items()} == {
        "version": "PostgreSQL 14.5",
        "durability": "fsync=on, full_page_writes=on, synchronous_commit=on",
        "writes": "it is no standby, and not read-only",
        "privileges": "the role app has what is needed",
        "clock": "this machine's and the database's are at most 0.10 s apart",
    }
    assert not any(remark.problem or remark.warns for remark in judged().values())


@pytest.mark.parametrize(
    ("facts", "about", "says"),
    [
        ({"number": 130_014, "version": "13.14"}, "version", "is PostgreSQL 13.14, and 14 or later is needed: upgrade"),
        ({"encoding": "SQL_ASCII"}, "version", "has the encoding SQL_ASCII, which cannot hold every name: create"),
        ({"fsync": "off"}, "durability", "would not survive a power loss; set fsync=on in the server's configuration"),
        ({"full_page_writes": "off"}, "durability", "set full_page_writes=on in the server's configuration"),
        ({"synchronous_commit": "off"}, "durability", "ALTER ROLE app SET synchronous_commit = on"),
        ({"standby": True}, "writes", "is a standby, which takes no writes: name the primary's endpoint"),
        ({"read_only": "on"}, "writes", "ALTER ROLE app SET default_transaction_read_only = off"),
        ({"creates": False}, "privileges", "GRANT CREATE ON DATABASE webhooks TO app"),
        ({"there": True, "uses": False}, "privileges", "GRANT USAGE ON SCHEMA whereby_trigger TO app"),
    ],
)
def test_what_is_not_says_what_to_do(facts: dict[str, Any], about: str, says: str) -> None:
    remarks = judged(**facts)
    assert [name for name, remark in remarks.items() if remark.problem] == [about]
    assert says in remarks[about].words
    assert remarks[about].words.count("postgresql://app@db.example/webhooks") == 1


def test_a_privilege_that_is_lacking_is_named() -> None:
    remark = judged(lacking=("INSERT, UPDATE on webhooks", "USAGE on webhooks_seq"))["privileges"]
    assert "the role app lacks INSERT, UPDATE on webhooks; USAGE on webhooks_seq in the store" in remark.words
    assert isinstance(remark.problem, StoreError)


@pytest.mark.parametrize("setting", ["local", "remote_write", "remote_apply"])
def test_a_commit_that_waits_for_this_disk_or_for_more_is_in_order(setting: str) -> None:
    assert judged(synchronous_commit=setting)["durability"].problem is None


@pytest.mark.parametrize(("now", "which"), [(SENT + 700, "700 s behind"), (SENT - 700, "700 s ahead of")])
def test_a_clock_that_is_off_is_said_though_it_works(now: float, which: str) -> None:
    remark = judged(now=now)["clock"]
    assert (remark.warns, remark.problem) == (True, None)
    assert f"this machine's clock is {which} the database's" in remark.words


@pytest.mark.parametrize("setting", ["synchronous_commit = off", "default_transaction_read_only = on"])
async def test_a_database_whose_settings_cannot_be_trusted_is_refused(
    postgres: Server, url: str, opened: Replicas, setting: str
) -> None:
    postgres.run(f"ALTER DATABASE {database_of(url)} SET {setting}")
    name = setting.partition(" ")[0]
    with pytest.raises(StoreError, match=name):
        await opened(url)
    with pytest.raises(StoreError, match=name):
        await PostgresStore(url).migrate()


async def test_an_option_of_the_url_cannot_do_what_is_refused(url: str, opened: Replicas) -> None:
    with pytest.raises(StoreError, match="see that no URL option sets it"):
        await opened(f"{url}?synchronous_commit=off")


SAFE = {"fsync": "on", "full_page_writes": "on"}


@pytest.fixture(scope="module")
def odd() -> Iterator[Server]:
    """Yield a server for this module only, stopped, to be started with settings that no server should have."""
    server = Server(quick=True)
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_server_that_would_not_survive_a_power_loss_is_refused(
    odd: Server, opened: Replicas, setting: str
) -> None:
    odd.start(**(SAFE | {setting: "off"}))
    try:
        with pytest.raises(StoreError, match=f"runs with {setting}=off"):
            await opened(odd.url())
    finally:
        odd.stop()


async def test_a_standby_is_refused_for_now(odd: Server, opened: Replicas) -> None:
    odd.start_as_standby(**SAFE)
    try:
        with pytest.raises(StoreUnavailable, match="is a standby, which takes no writes"):
            await opened(odd.url())
    finally:
        odd.stop()
