"""docs/scaling.md and what docs/operating.md says about PostgreSQL: the numbers are the code's, and the steps work."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from math import ceil
from pathlib import Path

import asyncpg
import pytest

from scripts.scaling import paper
from scripts.scaling.figures import Figures, load, save
from scripts.scaling.measure import Dose, measure
from tests.support.arrivals import arrival, decided, record
from tests.support.markdown import Page
from tests.support.postgres import Server, database_of
from tests.support.process import Process
from tests.support.rooms import ask, bring_to, take_one
from whereby_trigger.clock import RENEWALS
from whereby_trigger.config import OPTIONS
from whereby_trigger.decide.dispatcher import REREAD
from whereby_trigger.process import EXIT_CODE
from whereby_trigger.receive.asgi import PING_WITHIN
from whereby_trigger.receive.receiver import ANSWER_WITHIN
from whereby_trigger.store import RoomState, State, Store
from whereby_trigger.store.postgres import PostgresStore, opening
from whereby_trigger.store.postgres.connection import ADVICE, CONNECT_WITHIN, LIMITS
from whereby_trigger.store.postgres.opening import CLOCKS_APART, OLDEST
from whereby_trigger.store.postgres.store import POLL
from whereby_trigger.store.postgres.writer import PATIENCE, WRITERS
from whereby_trigger.store.spill import SPILL_AFTER

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[1] / "docs"
SCALING, OPERATING, ASSISTANTS = (Page(DOCS / f"{name}.md") for name in ("scaling", "operating", "assistants"))
DEFAULTS = {option.name: option.default for option in OPTIONS}
TTL = float(DEFAULTS["lease_ttl"])
LONG = 180.0


def bears(ttl: float) -> float:
    """Calculate the longest outage, in seconds, that stops no assistant."""
    every, told, _ = paper.self_stop(ttl)
    return told - every


EVERY, TOLD, ENDED = paper.self_stop(TTL)
TOLD_FROM, TOLD_TO = f"{bears(TTL):g}", f"{TOLD + 2 * (TTL - ENDED):g}"
"""A look takes as long as the margin, and comes as long after the last."""

SEEN = POLL * 1.2
"""Seconds within which every replica has looked: a poll, and a fifth."""

TAKEN_OVER = f"{TTL - EVERY:.0f} to {ceil(TTL + SEEN)} s"
IDLE = re.search(r"idle_in_transaction_session_timeout = '(\d+)s'", LIMITS)
TABLES = re.search(r"'(\d+)s'", opening.WAIT_FOR_TABLES)
assert IDLE is not None
assert TABLES is not None


def prose(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.mark.parametrize(
    "said",
    [
        f"A replica renews its lease {['', 'one', 'two', 'three', 'four', 'five', 'six'][RENEWALS]} times",
        f"Take {TTL:g} s, the default",
        f"each looks every {POLL:g} s, give or take a fifth",
        f"seen | within 0.1 s | within {SEEN:.1f} s",
        f"after the death, and somebody looks for it within {SEEN:.1f} s",
        f"each replica keeps up to {len(WRITERS) + 1}, two for deliveries, one for each other kind of writing",
        f"| `max_client_conn` | {len(WRITERS) + 1} for each replica",
        f"PostgreSQL {OLDEST // 10_000} or later",
        f"`max_rooms` ({DEFAULTS['max_rooms']}) assistants",
        f"those older than `max_age` ({DEFAULTS['max_age'] / 3600:g} h) are skipped",
        f"every {REREAD:g} s, when they re-read what is pending",
        f"a try takes up to {CONNECT_WITHIN:g} s",
        f"decided by others; a listener may be called again | {TAKEN_OVER} |",
        f"had locked, {IDLE[1]} s at most | {TAKEN_OVER} |",
        f"are answered 503 after {ANSWER_WITHIN:g} s, and `/readyz` turns to 503 within {PING_WITHIN:g} s",
        f"told to end {TOLD_FROM} to {TOLD_TO} s after the cut, and gone by {ENDED:g} s; "
        f"others start theirs within {ceil(TTL + SEEN)} s",
        f"told to end {TOLD_FROM} to {TOLD_TO} s after the outage began, and are gone by {ENDED:g} s",
        f"start again within {ceil(TTL - ENDED + CONNECT_WITHIN + SEEN)} s of its return",
        f"With a spill they are answered 200 within {SPILL_AFTER:g} s instead",
        f"From {DEFAULTS['tolerance'] / 60:g} minutes on it answers everything 401",
        f"A start says so from {CLOCKS_APART:g} s on",
        f"exit code {EXIT_CODE}",
        f"at its next renewal, at most {EVERY:g} s later",
        f"A migration waits for a table at most {TABLES[1]} s",
        f"The same with `lease_ttl={LONG:g}` | Assistants stay for {bears(LONG):g} s",
    ],
)
def test_the_numbers_of_the_page_are_the_codes(said: str) -> None:
    assert said in prose(SCALING)


def test_what_else_tells_of_a_replicas_connections_tells_the_same_number() -> None:
    assert f"A replica keeps up to {len(WRITERS) + 1} connections" in prose(OPERATING)
    assert f"each replica takes up to {len(WRITERS) + 1})" in ADVICE["53300"]


@pytest.mark.parametrize(
    "said",
    [
        f"its lease has to run out, which takes {TAKEN_OVER}",
        f"shorter than about {bears(TTL):g} s stops no assistant",
        f"{ENDED:g} s later nothing of its own runs any more",
        f"ends such a transaction after {IDLE[1]} s",
    ],
)
def test_the_numbers_of_leases_are_the_codes(said: str) -> None:
    assert said in prose(ASSISTANTS)


def test_the_manual_shows_a_check_of_todays_schema() -> None:
    assert f"ok store schema {opening.SCHEMA}, and takes writes" in prose(OPERATING)


def test_a_delivery_waits_for_the_database_no_longer_than_for_its_answer() -> None:
    assert ANSWER_WITHIN == PATIENCE
    assert f"until {PATIENCE:g} s after its first byte" in prose(OPERATING)


def test_the_calculation_on_the_page_is_made_from_what_was_measured_last() -> None:
    for name, table in paper.tables(load()).items():
        assert paper.MARK.format(name=name) + table + paper.END in SCALING.text, "run `make scaling`"


async def test_what_it_is_calculated_from_can_be_measured_and_written(tmp_path: Path) -> None:
    figures = await measure(Dose(webhooks=2000, kept=500, assistants=10, looks=3, live=(100,)))
    assert 550 < figures.webhook_table < 5000
    assert 100 < figures.webhook_indexes < 2000
    assert 550 < figures.webhook_log < 50_000
    (look,) = figures.looks
    assert 0 < look.milliseconds < 1000
    kept, page = tmp_path / "scaling.json", tmp_path / "scaling.md"
    save(figures, kept)
    assert load(kept) == figures
    page.write_text(SCALING.text)
    paper.write(_with_all_looks(figures), page)
    assert f"{figures.webhook_disk:,.0f} bytes on disk" in page.read_text()
    paper.write(load(), page)
    assert page.read_text() == SCALING.text


def _with_all_looks(figures: Figures) -> Figures:
    looks = [type(figures.looks[0])(live, 1, 1.0, 1.0) for live in (100, 1_000, 10_000, 100_000)]
    return Figures(**{name: getattr(figures, name) for name in figures.__struct_fields__} | {"looks": looks})


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = PostgresStore(url)
    await store.open(lambda: None)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.create_database()


def section(page: Page, heading: str) -> str:
    return page.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def sql(text: str) -> list[str]:
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


async def test_every_question_of_what_to_watch_has_an_answer(postgres: Server, url: str) -> None:
    async with opened(url) as store:
        await store.add(arrival("pending", received_at=0.0))
        await decided(store, "failed", State.FAILED, received_at=2e9)
        await ask(store)
        holding = await asyncpg.connect(url)
        try:
            await holding.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            answers = {
                question: postgres.run(question.replace("'1 minute'", "'0 minutes'"), database_of(url))
                for question in sql(section(OPERATING, "Watching a PostgreSQL"))
            }
        finally:
            await holding.close()
    pending, rooms, wrong, replicas, transactions, dead = answers.values()
    assert pending.startswith("1|")
    assert rooms.startswith("waiting|1|")
    assert wrong.startswith("failed|room.client.joined|predicate f returned True|1")
    assert replicas.startswith(store.replica)
    assert "|idle in transaction|" in transactions
    assert [line.partition("|")[0] for line in dead.splitlines()] == [
        "actions",
        "presence",
        "refusals",
        "replica_log",
        "replicas",
        "rooms",
        "runs",
        "version",
        "webhooks",
    ]


async def test_a_backup_of_a_store_at_work_is_restored_as_a_store_of_the_past(
    postgres: Server, url: str, tmp_path: Path
) -> None:
    dump, restore = re.findall(r"^\$ (pg_\w+ .+)$", section(OPERATING, "A store on PostgreSQL"), re.MULTILINE)
    copy = postgres.create_database()
    async with opened(url) as store:
        pending = await store.add(arrival("pending"))
        await decided(store, "decided")
        await bring_to(store, RoomState.LIVE)
        await _run(dump, postgres, url, tmp_path)
        await store.add(arrival("after the backup"))
    await _run(restore, postgres, copy, tmp_path)
    postgres.run("UPDATE whereby_trigger.replicas SET expires = 0", database_of(copy))
    async with opened(copy) as heir:
        assert await heir.take_over(3600.0) == 2
        assert [(row.seq, row.id, row.takeovers) for row in await heir.pending(0, 10)] == [(pending.seq, "pending", 1)]
        assert (await record(heir, "decided")).state is State.FIRED
        assert (await take_one(heir)).attempt == 2
        assert not (await heir.add(arrival("after the backup"))).duplicate


async def _run(command: str, server: Server, url: str, folder: Path) -> None:
    path = f"{server.programs}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "WHEREBY_TRIGGER_STORE": url}
    with Process(["sh", "-c", command], cwd=folder, env=environment) as program:
        assert await asyncio.to_thread(program.wait) == 0, program.output


@pytest.fixture
def roles_of_the_page(postgres: Server) -> Iterator[Server]:
    """Create the database of the page, and drop it and the roles that the test has made in it."""
    postgres.run("CREATE DATABASE trigger TEMPLATE template0")
    yield postgres
    postgres.run("DROP DATABASE trigger WITH (FORCE)")
    postgres.run("DROP ROLE IF EXISTS trigger_app, trigger_owner")


async def test_the_roles_of_the_page_are_enough_for_replicas_and_for_later_versions(roles_of_the_page: Server) -> None:
    server = roles_of_the_page
    make, later = sql(section(SCALING, "Roles and upgrades"))
    (grants,) = sql(section(OPERATING, "A store on PostgreSQL"))
    server.run(make, "trigger")
    for role in ("trigger_owner", "trigger_app"):
        server.run(f"ALTER ROLE {role} PASSWORD '{server.password}'")
    owner, app = server.url("trigger", "trigger_owner"), server.url("trigger", "trigger_app")
    assert await PostgresStore(owner).migrate() == sorted(opening.scripts())
    server.run(grants, "trigger")
    server.run(later, "trigger")
    async with opened(app) as store:
        await decided(store, "one")
        await ask(store)
        await take_one(store)
    as_owner = await asyncpg.connect(owner)
    await as_owner.execute("CREATE TABLE whereby_trigger.of_a_later_version (id bigserial)")
    await as_owner.close()
    async with opened(app) as store:
        await decided(store, "two")
